package release_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"updater/release"
)

func TestForSlot(t *testing.T) {
	ab := func(roles ...string) release.Layout { return release.Layout{Slots: []string{"A", "B"}, Roles: roles} }
	one := release.Layout{Slots: []string{"A"}, Roles: []string{"rootfs", "boot"}}
	type fault = release.SlotError
	for _, tc := range []struct {
		name, doc, slot string
		layout          release.Layout
		want            []string // "role slot"
		err             *fault
	}{
		{"one role", small(), "B", ab("rootfs"), []string{"rootfs "}, nil},
		{"variants", image2(), "B", ab("rootfs", "boot"), []string{"rootfs ", "boot B"}, nil},
		{"variants of the other slot", image2(), "A", ab("boot", "rootfs"), []string{"rootfs ", "boot A"}, nil},
		{"one slot", small() + image("boot", "A"), "A", one, []string{"rootfs ", "boot A"}, nil},
		{"missing role", small(), "A", ab("rootfs", "boot"), nil, &fault{Slot: "A", Missing: []string{"boot"}}},
		{"unknown role", small() + image("dtb", "") + image("boot", ""), "A", ab("rootfs"), nil, &fault{Slot: "A", Unknown: []string{"dtb", "boot"}}},
		{"unknown role with variants", image2(), "A", ab("rootfs"), nil, &fault{Slot: "A", Unknown: []string{"boot"}}},
		{"missing variant of the slot", small() + image("boot", "A"), "B", ab("rootfs", "boot"), nil, &fault{Slot: "B", Missing: []string{"boot@B"}}},
		{"missing variant of another slot", small() + image("boot", "A"), "A", ab("rootfs", "boot"), nil, &fault{Slot: "A", Missing: []string{"boot@B"}}},
		{"variant for another slot", image2() + image("boot", "C"), "A", ab("rootfs", "boot"), nil, &fault{Slot: "A", Variants: []string{"boot@C"}}},
		{"slot that is not configured", small(), "C", ab("rootfs"), nil, &fault{Slot: "C", NoSlot: true}},
		{"several faults", small() + image("dtb", ""), "A", ab("rootfs", "boot"), nil,
			&fault{Slot: "A", Missing: []string{"boot"}, Unknown: []string{"dtb"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			images, err := parse(t, tc.doc).ForSlot(tc.slot, tc.layout)
			var got []string
			for _, i := range images {
				got = append(got, i.Role+" "+i.Slot)
			}
			refused, _ := errors.AsType[*release.SlotError](err)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("ForSlot() (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.err, refused); diff != "" {
				t.Errorf("ForSlot() error %v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func image2() string { return small() + image("boot", "A") + image("boot", "B") }
