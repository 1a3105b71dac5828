package config

import (
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with a configuration file.
type Problem struct {
	Line    int    `json:"line,omitempty"` // from 1; that of the table where a key is missing; 0 where there is none
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`
}

// In is the problem as compilers print it: FILE:LINE: KEY: MESSAGE.
func (p Problem) In(path string) string {
	if p.Line > 0 {
		path = fmt.Sprintf("%s:%d", path, p.Line)
	}
	if p.Key == "" || strings.HasPrefix(p.Message, p.Key) || strings.Contains(p.Message, strconv.Quote(p.Key)) {
		return path + ": " + p.Message
	}
	return path + ": " + p.Key + ": " + p.Message
}

// Problems lists everything that is wrong with a configuration file, in the order of its lines. It opens nothing else. backends are the known
// values of boot.backend. more joins the errors of further checks, which begin with their key or slot, as those of this package do.
func Problems(path string, backends []string, more func(*Config) error) []Problem {
	c, text, errs := parse(path)
	if c != nil {
		errs = append(errs, c.check(backends)...)
	}
	if c != nil && len(errs) == 0 {
		errs = flatten([]error{more(c)})
	}
	var list []Problem
	for _, err := range errs {
		list = append(list, locate(c, lines(text), err.Error()))
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].Line < list[j].Line })
	return list
}

// slotWords begin the errors of a slot.
const slotWords = `name|partitions|files|partition|file|loader|boot_partition|attempts|priority|role \w+ is a file`

var (
	decodeError = regexp.MustCompile(`^toml: line (\d+)(?: \(last key "(.*?)"\))?: (?s)(.*)$`)
	unknownKey  = regexp.MustCompile(`^unknown key "(.*)"$`)
	inSlot      = regexp.MustCompile(`^slot (\w+):? (?:(` + slotWords + `)\b)?`)
	pinned      = regexp.MustCompile(`^trust\.key (\d+): (?:(fingerprint|roles|documents)\b)?`)
	dotted      = regexp.MustCompile(`^[a-z_]+(\.\w+)*`)
)

// locate finds key and line of an error by the key or slot with which its text begins.
func locate(c *Config, at map[string]int, text string) Problem {
	if m := decodeError.FindStringSubmatch(text); m != nil {
		line, _ := strconv.Atoi(m[1])
		return Problem{line, m[2], m[3]}
	}
	p := Problem{Message: text}
	if c == nil { // it could not be read
		return p
	}
	place := ""
	if m := unknownKey.FindStringSubmatch(text); m != nil {
		p.Key = m[1]
		place = p.Key
	} else if m := inSlot.FindStringSubmatch(text); m != nil {
		word := strings.Fields(map[string]string{"partition": "partitions", "file": "files"}[m[2]] + " " + m[2])
		p.Key, place = "slot", fmt.Sprintf("slot.%d", c.slotIndex(m[1]))
		if len(word) > 0 {
			p.Key, place = "slot."+strings.Replace(word[0], "role", "files", 1), place+"."+strings.Replace(word[0], "role", "files", 1)
		}
	} else if m := pinned.FindStringSubmatch(text); m != nil {
		n, _ := strconv.Atoi(m[1])
		p.Key, place = strings.TrimSuffix("trust.key."+m[2], "."), strings.TrimSuffix(fmt.Sprintf("trust.key.%d.%s", n-1, m[2]), ".")
	} else {
		p.Key = dotted.FindString(strings.TrimLeft(text, "["))
		place = p.Key
	}
	for ; place != "" && p.Line == 0; place = place[:max(strings.LastIndex(place, "."), 0)] {
		p.Line = at[place]
	}
	return p
}

// slotIndex is the index of a slot by its name, or by its number from 1.
func (c *Config) slotIndex(name string) int {
	for i, s := range c.Slot {
		if s.Name == name {
			return i
		}
	}
	n, _ := strconv.Atoi(name)
	return n - 1
}

var (
	header = regexp.MustCompile(`^\s*\[(\[?)\s*([\w."' -]+?)\s*\]`)
	assign = regexp.MustCompile(`^\s*([\w."' -]+?)\s*=`)
)

// lines are the lines of a text in TOML by their keys, from 1; entries of an array of tables are counted from 0: slot.1.name, and slot.name for
// the first that has the key.
func lines(text string) map[string]int {
	at, count := map[string]int{}, map[string]int{}
	table, counted := "", ""
	note := func(key string, line int) {
		if at[key] == 0 {
			at[key] = line
		}
	}
	n := 0
	for line := range strings.Lines(text) {
		n++
		if m := header.FindStringSubmatch(line); m != nil {
			table = m[2]
			if counted = table; m[1] != "" {
				counted = fmt.Sprintf("%s.%d", table, count[table])
				count[table]++
			}
			note(table, n)
			note(counted, n)
		} else if m := assign.FindStringSubmatch(line); m != nil {
			for _, prefix := range []string{table, counted} {
				note(strings.TrimPrefix(prefix+"."+m[1], "."), n)
			}
		}
	}
	return at
}
