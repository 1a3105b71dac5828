// Package web is the web page of the recovery: one page that shows the slots and the progress, accepts a release or an address, boots a
// slot once and restarts.
//
// Guarantees:
//
//   - Nothing is shown or done before the code of the console was entered; codes are compared in constant time, and few are tried a minute.
//   - The page decides nothing: an upload is verified like a stick, and choices run where those of the console run, one at a time.
//   - An upload is streamed into the install. Memory is bounded, whatever a client sends, and no name that it sends opens a file.
//   - A slow client is cut off: in its headers after seconds, in an upload when 64 KiB take longer than half a minute.
//
// The package does not encrypt HTTP. A listener in the network learns the code and can do what the page can, which is never to install
// an unsigned release.
package web
