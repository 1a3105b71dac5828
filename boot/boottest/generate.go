package boottest

import "math/rand/v2"

// UBootEntries returns the entries of a generated environment with their NULs, and the empty one at the end. Names repeat often. odd allows
// what readers may treat differently.
func UBootEntries(rng *rand.Rand, odd bool) []byte {
	names := []string{"BOOT_ORDER", "BOOT_A_LEFT", "BOOT_B_LEFT", "bootcmd", "BOOT_ORDERS", "BOOT", ".flags"}
	values := []string{"A B", "B A", "A", "3", "0", "1", "", "a=b", "run x; boot"}
	if odd {
		names = append(names, " BOOT_ORDER", "\tBOOT_A_LEFT", "#BOOT_ORDER", "", "BOOT_ORDER ", "boot_order")
		values = append(values, `A\ B`, `A\`, "A B\r", "\xff", "A  B", "=A", " B A", "0x3", "10", "3x", "-1", "$x")
	}
	var out []byte
	for range rng.IntN(12) {
		name, value := names[rng.IntN(len(names))], values[rng.IntN(len(values))]
		switch kind := rng.IntN(8); {
		case odd && kind == 0:
			out = append(append(out, name...), 0) // no =
		case odd && kind == 1 && rng.IntN(4) == 0:
			out = append(out, 0) // empty
		default:
			out = append(append(out, name+"="+value...), 0)
		}
	}
	return append(out, 0)
}

// GrubBlock returns a generated environment block with the variable ORDER and others of a dialect. Names repeat often, and some blocks have
// content that readers may treat differently.
func GrubBlock(rng *rand.Rand, names []string) []byte {
	names = append([]string{"ORDER", "ORDERS", "saved_entry"}, names...)
	values := []string{"A B", "B A", "A", "0", "1", "2", "g", "", "a=b", "#", `a\\b`}
	odd := rng.IntN(2) == 0
	if odd {
		names = append(names, "#ORDER", "", " ORDER", "ORDER ", `A\_OK`, `A_OK\`)
		values = append(values, "A\r", "x\\\nORDER=B", `\`, `\x`, "##")
	}
	out := []byte("# GRUB Environment Block\n")
	for range rng.IntN(9) {
		name, value := names[rng.IntN(len(names))], values[rng.IntN(len(values))]
		switch kind := rng.IntN(10); {
		case odd && kind == 0:
			out = append(out, name+"\n"...) // no =
		case odd && kind == 1:
			out = append(out, "# comment\n"...)
		case odd && kind == 2:
			out = append(out, '\n')
		default:
			out = append(out, name+"="+value+"\n"...)
		}
	}
	for size := 512 * (1 + rng.IntN(2)); len(out) < size; {
		out = append(out, '#')
	}
	if odd && rng.IntN(8) == 0 {
		out[len(out)-1] = 'x' // no padding
	}
	return out
}
