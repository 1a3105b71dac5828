package config

import "path/filepath"

// Hooks is [hooks]: programs of the running system that an install calls. The initramfs calls none of them unless Initramfs is
// set, since both often share one configuration file.
type Hooks struct {
	PreInstall   string   `toml:"pre_install"`   // before anything is written; its failure refuses the install
	PostInstall  string   `toml:"post_install"`  // after the read-back; its failure prevents the switch
	PostActivate string   `toml:"post_activate"` // after the switch; its failure is reported and undoes nothing
	Timeout      Duration `toml:"timeout"`       // of each; 0 is 60 s
	Mount        bool     `toml:"mount"`         // post_install finds the new slot mounted read-only
	Initramfs    bool     `toml:"initramfs"`
}

// Programs lists the configured programs by their keys in the configuration.
func (h *Hooks) Programs() map[string]string {
	programs := map[string]string{}
	for key, path := range map[string]string{
		"hooks.pre_install": h.PreInstall, "hooks.post_install": h.PostInstall, "hooks.post_activate": h.PostActivate,
	} {
		if path != "" {
			programs[key] = path
		}
	}
	return programs
}

// resolve makes paths absolute: a hook starts in another folder.
func (h *Hooks) resolve(dir string) {
	for _, p := range []*string{&h.PreInstall, &h.PostInstall, &h.PostActivate} {
		if *p == "" {
			continue
		}
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
		if abs, err := filepath.Abs(*p); err == nil {
			*p = abs
		}
	}
}
