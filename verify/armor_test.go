package verify_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"updater/verify"
)

// armoredAs is armor without headers and checksum, in lines of 64 characters.
func armoredAs(data []byte, kind string) []byte {
	text := base64.StdEncoding.EncodeToString(data)
	out := "-----BEGIN " + kind + "-----\n\n"
	for ; len(text) > 64; text = text[64:] {
		out += text[:64] + "\n"
	}
	return []byte(out + text + "\n-----END " + kind + "-----\n")
}

// checksum is the last line of an armor, by the algorithm of RFC 9580 section 6.1.1.
func checksum(data []byte) string {
	crc := 0xb704ce
	for _, b := range data {
		for bit := 7; bit >= 0; bit-- {
			high := crc>>23&1 ^ int(b)>>bit&1
			if crc = crc << 1 & 0xffffff; high == 1 {
				crc ^= 0x864cfb
			}
		}
	}
	return "=" + base64.StdEncoding.EncodeToString([]byte{byte(crc >> 16), byte(crc >> 8), byte(crc)})
}

// TestArmor: one spelling of armor is accepted, with optional headers, checksum and blank lines after it; every other one is refused.
func TestArmor(t *testing.T) {
	e := goKey(t, packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	sig := goSign(t, e, testDoc)
	for len(sig)%3 != 2 { // so that the base64 has one '=' and two bits without meaning
		sig = withUnhashed(t, sig, 99)
	}
	plain := string(armoredAs(sig, "PGP SIGNATURE"))
	sum := checksum(sig)
	const begin, end = "-----BEGIN PGP SIGNATURE-----\n", "-----END PGP SIGNATURE-----"
	text := base64.StdEncoding.EncodeToString(sig)
	body := func(lines ...string) string { return begin + "\n" + strings.Join(lines, "\n") + "\n" + end + "\n" }
	header := func(lines ...string) string {
		return begin + strings.Join(lines, "\n") + strings.TrimPrefix(plain, begin)
	}
	last := strings.LastIndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", text[len(text)-2])
	loose := text[:len(text)-2] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[last|1]) + "="
	for name, c := range map[string]struct{ sig, want string }{
		"plain":                      {plain, ""},
		"with its checksum":          {body(text, sum), ""},
		"blank lines behind it":      {plain + "\r\n\n", ""},
		"without a last newline":     {strings.TrimSuffix(plain, "\n"), ""},
		"lines of any length":        {body(text[:1], text[1:8], text[8:]), ""},
		"headers":                    {header("Version: 1", "Comment:", ""), ""},
		"a long header":              {header("Comment: "+strings.Repeat("x", 247), ""), ""},
		"a header that is too long":  {header("Comment: "+strings.Repeat("x", 248), ""), "is not an armor header"},
		"a header without a colon":   {header("Comment", ""), "is not an armor header"},
		"a header without a blank":   {header("Comment:x", ""), "is not an armor header"},
		"no blank line":              {strings.Replace(plain, "\n\n", "\n", 1), "is not an armor header"},
		"nothing but its first line": {begin, "the blank line after its headers is missing"},
		"a first line without end":   {strings.Replace(plain, "SIGNATURE-----", "SIGNATURE", 1), "does not begin an armored block"},
		"another last line":          {strings.Replace(plain, "END PGP SIGNATURE", "END PGP MESSAGE", 1), "is missing"},
		"no last line":               {strings.TrimSuffix(plain, end+"\n"), "is missing"},
		"a blank line in it":         {body(text[:4], "", text[4:]), "is not armor"},
		"a line behind the checksum": {body(text[:4], sum, text[4:]), "is not armor"},
		"two checksums":              {body(text, sum, sum), "is not armor"},
		"another checksum":           {body(text, checksum(sig[1:])), "armor checksum is"},
		"a longer checksum":          {body(text, sum+"A"), "armor checksum is"},
		"a return in the checksum":   {body(text, sum[:3]+"\r"+sum[3:]), "armor checksum is"},
		"a shorter checksum":         {body(text, sum[:4]), "armor checksum is"},
		"an empty checksum":          {body(text, "="), "armor checksum is"},
		"a carriage return in it":    {body(text[:4] + "\r" + text[4:]), "stray carriage return"},
		"a foreign character":        {body(text[:4] + "?" + text[5:]), "decoding armor"},
		"bits without meaning":       {body(loose), "decoding armor"},
		"without padding":            {body(strings.TrimSuffix(text, "=")), "decoding armor"},
		"empty":                      {begin + "\n" + end + "\n", "document has no signature"},
	} {
		got, err := verify.Policy{Keyring: ring(t, goExport(t, e)), Time: now2025}.Verify(testDoc, []byte(c.sig))
		t.Run(name, func(t *testing.T) { checkVerdict(t, got, err, testDoc, c.want) })
	}

	text = base64.StdEncoding.EncodeToString(withUnhashed(t, sig, 99, make([]byte, 150)...))
	for n, want := range map[int]string{256: "", 257: "is not armor"} {
		got, err := verify.Policy{Keyring: ring(t, goExport(t, e)), Time: now2025}.Verify(testDoc, []byte(body(text[:n], text[n:])))
		t.Run(fmt.Sprintf("a line of %d characters", n), func(t *testing.T) { checkVerdict(t, got, err, testDoc, want) })
	}
}

// TestBrokenPackets: packets that end inside their header are refused.
func TestBrokenPackets(t *testing.T) {
	e := goKey(t, packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	p := verify.Policy{Keyring: ring(t, goExport(t, e)), Time: now2025}
	good := goSign(t, e, testDoc)
	for _, tail := range [][]byte{
		{0xc2}, {0xc2, 192}, {0xc2, 192, 0}, {0xc2, 223, 255}, {0xc2, 255}, {0xc2, 255, 0, 0, 0}, {0xc2, 255, 255, 255, 255, 255}, {0xc2, 1},
		{0x88}, {0x89, 0}, {0x8a, 0, 0, 0}, {0x8a, 255, 255, 255, 255}, {0x88, 1},
	} {
		for _, sig := range [][]byte{tail, append(bytes.Clone(good), tail...)} {
			got, err := p.Verify(testDoc, sig)
			checkVerdict(t, got, err, nil, "OpenPGP packet is truncated")
		}
	}
	for size, header := range map[int][]byte{3 + 8127: {0xc2, 222, 255}, 3 + 8383: {0xc2, 223, 255}, 6 + 8384: {0xc2, 255, 0}} { // the longest of each form
		sig := filled(t, good, size)
		if !bytes.HasPrefix(sig, header) {
			t.Fatalf("a signature of %d bytes begins with %x; want %x", size, sig[:3], header)
		}
		got, err := p.Verify(testDoc, sig)
		checkVerdict(t, got, err, testDoc, "")
	}
	for _, first := range []byte{224, 254} {
		got, err := p.Verify(testDoc, append([]byte{0xc2, first}, make([]byte, 20_000)...))
		checkVerdict(t, got, err, nil, "partial length")
	}
}
