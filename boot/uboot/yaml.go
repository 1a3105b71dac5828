package uboot

import (
	"fmt"
	"strings"
)

// isYAML reports whether text has the YAML form of fw_env.config: its first line is a key without a value.
func isYAML(text string) bool {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" && line != "---" {
			return strings.HasSuffix(line, ":")
		}
	}
	return false
}

// yamlConfig is the state of [parseYAML].
type yamlConfig struct {
	namespace string
	section   string // key of the list that is being read, "" for none
	size      int64
	areas     []AreaConfig
	seen      map[string]bool // keys of the namespace, or of the device
}

// parseYAML parses the YAML form (libubootenv, src/extended_config.c, consume_event). It accepts only block style, one
// namespace, and each key once. Numbers are those of strtoull(3) with base 0.
func parseYAML(text string) ([]AreaConfig, error) {
	c, n := yamlConfig{}, 0
	for line := range strings.Lines(text) {
		n++
		if at := strings.Index(" "+line, " #"); at >= 0 {
			line = line[:at]
		}
		if body := strings.TrimSpace(line); body == "" || body == "---" {
			continue
		}
		if err := c.line(strings.TrimRight(line, " \r\n")); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	for i := range c.areas {
		if c.areas[i].Device == "" {
			return nil, fmt.Errorf("namespace %s: device %d has no path", c.namespace, i+1)
		}
		c.areas[i].Size = c.size
	}
	return c.areas, nil
}

func (c *yamlConfig) line(line string) error {
	body := strings.TrimLeft(line, " ")
	item, isItem := strings.CutPrefix(body, "- ")
	if c.section == "writelist" && isItem {
		return nil // which variables fw_setenv may change
	}
	key, value, ok := strings.Cut(item, ":")
	if !ok || strings.Contains(line, "\t") {
		return fmt.Errorf("%.40q, expected key: value", body)
	}
	key, value = strings.TrimSpace(key), strings.Trim(strings.TrimSpace(value), `"'`)
	switch {
	case body == line && !isItem:
		if value != "" || c.namespace != "" {
			return fmt.Errorf("%.40q, expected one namespace", line)
		}
		c.namespace, c.seen = key, map[string]bool{}
		return nil
	case c.namespace == "":
		return fmt.Errorf("%.40q, expected a namespace", line)
	case isItem && c.section == "devices":
		c.areas, c.seen = append(c.areas, AreaConfig{}), map[string]bool{}
	}
	if c.seen[key] {
		return fmt.Errorf("%s is set twice", key)
	}
	c.seen[key] = true
	return c.set(key, value)
}

func (c *yamlConfig) set(key, value string) (err error) {
	inDevice := c.section == "devices" && len(c.areas) > 0
	switch {
	case key == "size" && c.section == "":
		c.size, err = number(value, 0)
	case key == "lockfile" && c.section == "":
	case (key == "devices" || key == "writelist") && value == "":
		if key == "devices" && c.size == 0 {
			return fmt.Errorf("devices come before size, which libubootenv does not apply to them")
		}
		c.section, c.seen = key, map[string]bool{key: true}
	case key == "path" && inDevice:
		c.areas[len(c.areas)-1].Device = value
	case key == "offset" && inDevice:
		c.areas[len(c.areas)-1].Offset, err = number(value, 0)
	case key == "sectorsize" && inDevice, key == "disablelock" && inDevice:
	default:
		return fmt.Errorf("unexpected key %.40q", key)
	}
	return err
}
