package recovery

import "testing"

func TestExpandURL(t *testing.T) {
	for _, c := range []struct{ address, serial, mac, want string }{
		{"https://x/image.zst", "S", "m", "https://x/image.zst"},
		{"https://x/{serial}/{mac}/i.zst", "S/N 7", "02:00:5e:10:00:01", "https://x/S%2FN%207/02-00-5e-10-00-01/i.zst"},
		{"https://x/{serial}.zst?for={mac}", "", "", "https://x/.zst?for="},
		{"https://x/{other}", "{mac}", "m", "https://x/{other}"},
		{"https://x/{serial}", "{mac}", "m", "https://x/%7Bmac%7D"},
	} {
		if got := expandURL(c.address, c.serial, c.mac); got != c.want {
			t.Errorf("expandURL(%q) = %q; want %q", c.address, got, c.want)
		}
	}
}
