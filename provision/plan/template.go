package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Expand replaces {name} in text by the variable of that name; {{ is a brace. Values are not expanded again. An unknown name is
// an error that lists the known ones.
func Expand(text string, vars map[string]string) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "{")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		if strings.HasPrefix(rest, "{") {
			out.WriteByte('{')
			text = rest[1:]
			continue
		}
		name, after, closed := strings.Cut(rest, "}")
		value, known := vars[name]
		if !closed || !known {
			return "", fmt.Errorf("{%.40s is not a variable, expected one of %s", name, strings.Join(slices.Sorted(maps.Keys(vars)), ", "))
		}
		out.WriteString(value)
		text = after
	}
}
