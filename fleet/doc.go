// Package fleet answers the questions of a device that follows a channel: is there something newer, is it this device's turn, did it work.
// [Choose] is the rule; [Check] and [Update] apply it to the channel of the configuration; [Deliver] reports the outcome of an install.
//
// Guarantees:
//
//   - The choice is a pure function of the channel, the device and the time. No server decides it, and none learns the identifier.
//   - A channel counts after its signature was checked and when it is not older than the newest one that the device has seen.
//   - A release that failed on this device is not chosen again until the channel raises its attempt.
//   - No report says "good" before the slot was marked good.
//
// The package does not make a choice trusted: the chosen release is accepted by its own signature, as in any install.
package fleet
