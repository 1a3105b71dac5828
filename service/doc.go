// Package service answers programs on the device over a socket, by the protocol of varlink.org and the interface io.updater
// (io.updater.varlink).
//
// Guarantees: a message is bounded, an unknown method or parameter is refused, and a client that does not read delays no install. Every
// method does what the verb of its name does, behind the same locks and checks, with the same events.
//
// The package does not check who calls: the mode of the socket decides. It is not a daemon: [Service.Serve] ends when nobody has been
// connected for a while, and the socket's unit starts the program again.
package service
