package recovery

import (
	"context"
	"io"
	"strings"

	"updater/device"
	"updater/install"
)

// InstallStream installs a release, or one image with its block map, from a tar stream.
func (d *Device) InstallStream(ctx context.Context, archive io.Reader) error {
	streaming := *d
	streaming.Inputs.Stdin = archive
	return streaming.install(ctx, install.Request{Image: "-"})
}

// Current returns the status of the device ([device.Status]). It is safe for concurrent use.
func (d *Device) Current(ctx context.Context) (any, error) {
	return device.ReadStatus(ctx, d.Config, "")
}

// maxCode bounds the file of a code, in bytes.
const maxCode = 256

// WebCode reads the code of the web page that the configuration names; "" if it names none. Errors: [config.Error], those of the device.
func (d *Device) WebCode() (string, error) {
	place, ok, err := d.Config.Recovery.CodePlace()
	if err != nil || !ok {
		return "", err
	}
	dev, err := device.Open(d.Config, device.Options{})
	if err != nil {
		return "", err
	}
	defer dev.Close()
	data, err := dev.ReadPlace(place, maxCode)
	return strings.TrimSpace(string(data)), err
}
