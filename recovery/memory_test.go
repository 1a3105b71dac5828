package recovery_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"updater/device"
	"updater/device/config"
	"updater/initramfs"
	"updater/install"
	"updater/internal/rig"
	"updater/recovery"
	"updater/update"
)

// TestAddressesObeyTheMemory: a release that fell back here is not installed again from an address of the configuration, and is from a medium
// or an address that a person names.
func TestAddressesObeyTheMemory(t *testing.T) {
	r := rig.New(t)
	server := httptest.NewServer(http.FileServer(http.Dir(r.Dir)))
	defer server.Close()
	url := server.URL + "/image.img"
	r.Configure(`state = "PARTLABEL=state"`, "\n[report]\nurl = \"http://127.0.0.1:9/\"\n[recovery]\nurls = [\""+url+"\"]\n")
	r.Install(0, "slot B boots next", "image.img")
	r.Sh(`mcopy -n -o -i disk.img@@1M ::/grub/grubenv e; grub-editenv e set B_TRY=1; mcopy -o -i disk.img@@1M e ::/grub/grubenv
		sed -i '/^booted/d' config.toml`)
	conf, err := device.LoadConfig(r.Path("config.toml"), config.Build{})
	if err != nil {
		t.Fatal(err)
	}
	d := &recovery.Device{
		Config: conf, Work: new(initramfs.Work), Say: t.Logf, Events: func() recovery.Events { return events{} },
		Inputs: install.Inputs{Warn: t.Logf},
	}
	err = d.InstallURL(t.Context(), url)
	if _, refused := errors.AsType[*update.IncompatibleError](err); !refused || r.Next() != "A" {
		t.Errorf("the address of the configuration: %v, and slot %s boots next; want a refusal and A", err, r.Next())
	}
	if err := d.InstallURL(t.Context(), url+"?by=hand"); err != nil || r.Next() != "B" {
		t.Errorf("an address that a person names: %v, and slot %s boots next; want B", err, r.Next())
	}
}

// TestMirrors: the recovery asks the mirrors of the channel when the server of one of its addresses is gone. A release without a valid signature
// is refused from a mirror, too.
func TestMirrors(t *testing.T) {
	r := rig.New(t)
	server := httptest.NewServer(http.FileServer(http.Dir(r.Dir)))
	defer server.Close()
	const gone = "http://127.0.0.1:9"
	r.Configure(`state = "PARTLABEL=state"`, "\n[channel]\nurl = \""+gone+"/pub/channel.toml\"\nmirrors = [\""+server.URL+"/channel.toml\"]\n[source]\ngive_up = \"1s\"\n")
	r.Sh(`sed -i '/^booted/d' config.toml; mkdir foreign; cp image.img foreign; cp other.sig foreign/image.img.bmap.sig; cp image.img.bmap foreign`)
	conf, err := device.LoadConfig(r.Path("config.toml"), config.Build{})
	if err != nil {
		t.Fatal(err)
	}
	d := &recovery.Device{
		Config: conf, Work: new(initramfs.Work), Say: t.Logf, Events: func() recovery.Events { return events{} },
		Inputs: install.Inputs{Warn: t.Logf},
	}
	if err := d.InstallURL(t.Context(), gone+"/pub/foreign/image.img"); err == nil || r.Next() != "A" {
		t.Errorf("an image that nobody signed: %v; slot %s boots next", err, r.Next())
	}
	if err := d.InstallURL(t.Context(), gone+"/elsewhere/image.img"); err == nil {
		t.Error("an address outside of the channel's folder has a mirror")
	}
	if err := d.InstallURL(t.Context(), gone+"/pub/image.img"); err != nil || r.Next() != "B" {
		t.Errorf("the image of a mirror: %v; slot %s boots next", err, r.Next())
	}
}
