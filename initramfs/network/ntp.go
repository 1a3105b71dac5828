package network

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// ntpEpoch is the number of seconds from 1900-01-01 to 1970-01-01. NTP seconds overflow 32 bits in 2036.
const ntpEpoch = 2208988800

// AskTime requests the time from an NTP server (SNTP, RFC 4330). The answer is unauthenticated: use it only as a hint, such as
// for the validity of TLS certificates. It takes at most two seconds.
func AskTime(ctx context.Context, server netip.Addr) (time.Time, error) {
	t, err := askTime(ctx, netip.AddrPortFrom(server, 123))
	if err != nil {
		return time.Time{}, fmt.Errorf("asking %s for the time: %w", server, err)
	}
	return t, nil
}

func askTime(ctx context.Context, server netip.AddrPort) (time.Time, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", server.String())
	if err != nil {
		return time.Time{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return time.Time{}, err
	}
	ask := make([]byte, 48)
	ask[0] = 4<<3 | 3 // version 4, client
	if _, err := rand.Read(ask[40:]); err != nil {
		return time.Time{}, err
	}
	if _, err := conn.Write(ask); err != nil {
		return time.Time{}, err
	}
	answer := make([]byte, 48)
	if n, err := conn.Read(answer); err != nil {
		return time.Time{}, err
	} else if n < 48 {
		return time.Time{}, fmt.Errorf("the answer has %d bytes, expected 48", n)
	}
	return readTime(ask, answer)
}

func readTime(ask, answer []byte) (time.Time, error) {
	switch {
	case answer[0]&7 != 4:
		return time.Time{}, errors.New("the answer is not in server mode")
	case answer[0]>>6 == 3 || answer[1] == 0 || answer[1] > 15:
		return time.Time{}, errors.New("the server is not synchronized")
	case string(answer[24:32]) != string(ask[40:48]):
		return time.Time{}, errors.New("the answer does not match the request")
	}
	seconds := int64(binary.BigEndian.Uint32(answer[40:])) - ntpEpoch
	if seconds < 0 { // since 2036
		seconds += 1 << 32
	}
	return time.Unix(seconds, 0), nil
}
