package config

import (
	"errors"
	"fmt"
)

// Area is a place for boot state or the state store: a file, a partition, or a window of a device.
type Area struct {
	Device string
	Offset int64 // bytes; negative counts from the end
	Size   int64 // bytes; 0 is the whole device
	Blocks int64 // flash: erase blocks that it may use, so that bad ones can be skipped; 0 is as many as it needs
}

// State is the state key: a path, a partition, or { device, offset, size }.
type State struct{ Area }

// UnmarshalTOML implements toml.Unmarshaler, strictly.
func (s *State) UnmarshalTOML(v any) (err error) {
	switch v := v.(type) {
	case string:
		if v == "" {
			return errors.New("state is empty, expected a file or a partition")
		}
		s.Device = v
		return nil
	case map[string]any:
		s.Area, err = parseArea("state", v)
		return err
	}
	return fmt.Errorf("state: expected a string or { device = ..., offset = ..., size = ... }, got %T", v)
}

// Env is the env key of [boot]: one string for a file or partition, or a list of areas.
type Env struct {
	File  string
	Areas []Area
}

// UnmarshalTOML implements toml.Unmarshaler, strictly.
func (e *Env) UnmarshalTOML(v any) error {
	var tables []any
	switch v := v.(type) {
	case string:
		e.File = v
		return nil
	case []map[string]any:
		for _, m := range v {
			tables = append(tables, m)
		}
	case []any:
		tables = v
	default:
		return fmt.Errorf("boot.env: expected a string or a list of areas, got %T", v)
	}
	for _, t := range tables {
		m, ok := t.(map[string]any)
		if !ok {
			return fmt.Errorf("boot.env: expected { device = ..., offset = ..., size = ... }, got %T", t)
		}
		a, err := parseArea("boot.env", m)
		if err != nil {
			return err
		}
		e.Areas = append(e.Areas, a)
	}
	return nil
}

// parseArea reads { device, offset, size } of a key, strictly.
func parseArea(key string, m map[string]any) (a Area, err error) {
	for name, v := range m {
		var ok bool
		switch name {
		case "device":
			a.Device, ok = v.(string)
		case "offset":
			a.Offset, ok = v.(int64)
		case "size":
			a.Size, ok = v.(int64)
		default:
			return a, fmt.Errorf("%s: unknown key %q; expected device, offset, size", key, name)
		}
		if !ok {
			return a, fmt.Errorf("%s: %s is %v, of the wrong type", key, name, v)
		}
	}
	if a.Device == "" || a.Size <= 0 {
		return a, fmt.Errorf("%s: every area needs device and size", key)
	}
	return a, nil
}
