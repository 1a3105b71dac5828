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

// ntpEpoch is 1900-01-01 before 1970-01-01, in seconds. Its 32 bits turn over in 2036.
const ntpEpoch = 2208988800

// AskTime asks a time server (RFC 4330, SNTP). The answer is not authenticated: it is a hint, for example
// for which certificates are valid, and nothing that is trusted may depend on it.
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
		return time.Time{}, fmt.Errorf("an answer of %d bytes", n)
	}
	return readTime(ask, answer)
}

func readTime(ask, answer []byte) (time.Time, error) {
	switch {
	case answer[0]&7 != 4:
		return time.Time{}, errors.New("the answer is not a server's")
	case answer[0]>>6 == 3 || answer[1] == 0 || answer[1] > 15:
		return time.Time{}, errors.New("the server does not know the time itself")
	case string(answer[24:32]) != string(ask[40:48]):
		return time.Time{}, errors.New("the answer is not to this question")
	}
	seconds := int64(binary.BigEndian.Uint32(answer[40:])) - ntpEpoch
	if seconds < 0 { // since 2036
		seconds += 1 << 32
	}
	return time.Unix(seconds, 0), nil
}
