package bmap_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"updater/bmap"
)

// expatReader reads maps, one JSON string in a line, as bmaptool does: with expat, by Python. It prints the content of the map, or why it is no XML.
const expatReader = `import json, sys, xml.etree.ElementTree as E
for line in sys.stdin:
    try:
        r = E.fromstring(bytes.fromhex(json.loads(line)))
    except E.ParseError as e:
        print('no XML:', e)
        continue
    def text(e, name):
        return '' if e is None or e.find(name) is None else (e.find(name).text or '').strip()
    out = [int(text(r, n)) for n in ('ImageSize', 'BlockSize', 'MappedBlocksCount')]
    for x in r.find('BlockMap').findall('Range'):
        first, _, last = x.text.strip().partition('-')
        out += [int(first), int(last or first), (x.get('sha1') or '').lower()]
    u = r.find('Update')
    out += [text(u, 'Product'), int(text(u, 'RollbackIndex') or 0), text(u, 'Role')]
    print(*out, sep='|')
`

const expatSeed = `<?xml version="1.0" encoding="UTF-8" standalone="yes" ?>
<!-- c -->
<bmap version="1.2">
    <ImageSize> 40960 </ImageSize>
    <BlockSize> 4096 </BlockSize>
    <BlocksCount> 10 </BlocksCount>
    <MappedBlocksCount> 5 </MappedBlocksCount>
    <Foo a="b" c='d'><Bar/>x &amp; &#65; <![CDATA[ z ]]></Foo>
    <Update><Product>gw</Product><RollbackIndex>12</RollbackIndex><Role>rootfs</Role></Update>
    <BlockMap>
        <Range sha1="da39a3ee5e6b4b0d3255bfef95601890afd80709"> 0-3 </Range>
        <Range sha1="da39a3ee5e6b4b0d3255bfef95601890afd80700"> 7 </Range>
        <Junk/>
    </BlockMap>
</bmap>
`

// TestMutatedMaps: a map that Parse accepts is XML for expat, which bmaptool uses, and has the same content there. The XML declaration
// is left out: Parse does not read its attributes.
func TestMutatedMaps(t *testing.T) {
	needTool(t, "python3")
	pieces := []string{"<", ">", "/>", "</", "<!--", "-->", "<![CDATA[", "]]>", "&amp;", "&#0;", "&#x41;", "&foo;", "<!DOCTYPE x [<!ENTITY a '1'>]>", "<?pi x?>",
		`xmlns="u"`, ` a:b="1"`, "\ufeff", "\u0085", "\u2028", "\u00a0", "\x00", "\xff\xfe", "\r\n", "\t", `"`, "'", "--", "]]", "0", "9", "-", "+", "_", "é", "\u0300",
		"\ufffe", "<Range> 4 </Range>", "<ImageSize> 1 </ImageSize>", "<Product>x</Product>", "version='1.1'", "</bmap>", "<Update>", "</Update>"}
	declared := strings.Index(expatSeed, "\n")
	r := rand.New(rand.NewChaCha8([32]byte{2}))
	var input bytes.Buffer
	var docs, want []string
	for range 40_000 {
		b := []byte(expatSeed)
		for range 1 + r.IntN(4) {
			i := declared + r.IntN(len(b)-declared)
			switch piece := pieces[r.IntN(len(pieces))]; r.IntN(5) {
			case 0:
				b[i] = byte(r.IntN(256))
			case 1:
				b = slices.Insert(b, i, []byte(piece)...)
			case 2:
				b = slices.Delete(b, i, min(len(b), i+1+r.IntN(5)))
			case 3:
				j := min(len(b), i+r.IntN(30))
				b = slices.Insert(b, declared+r.IntN(len(b)-declared), bytes.Clone(b[i:j])...)
			case 4:
				b[i] = " \t\r\n"[r.IntN(4)]
			}
		}
		m, err := bmap.Parse(b)
		if err != nil {
			continue
		}
		out := fmt.Sprintf("%d|%d|%d", m.ImageSize(), m.BlockSize(), m.MappedBlocks())
		for _, g := range m.Ranges() {
			out += fmt.Sprintf("|%d|%d|%s", g.First, g.Last, g.Checksum)
		}
		u := m.Update()
		if u == nil {
			u = new(bmap.Update)
		}
		docs, want = append(docs, string(b)), append(want, out+fmt.Sprintf("|%s|%d|%s", u.Product, u.RollbackIndex, u.Role))
		if err := json.NewEncoder(&input).Encode(fmt.Sprintf("%x", b)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("python3", "-c", expatReader)
	cmd.Stdin = &input
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python3: %v", err)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(got) != len(want) || len(got) < 1000 {
		t.Fatalf("expat answered to %d of %d accepted maps, expected all, and 1000 or more", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("expat reads %s, Parse %s, in %q", got[i], want[i], docs[i])
		}
	}
	t.Logf("%d accepted maps agree", len(want))
}
