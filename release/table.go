package release

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// field is one key of a table: how its value is checked, kept and written. An absent optional field has the zero value, which no
// document can give it in another way.
type field struct {
	name     string
	optional bool
	set      func(value any) error
	get      func() string // as TOML
	zero     func() bool
}

// table is one table of a document while it is read.
type table struct {
	name   string // in errors, such as "image 2"; "" for the keys before the first header
	fields []field
	free   map[string]string // unless nil: any bare key with a string
}

// opt makes a field optional.
func (f field) opt() field {
	f.optional = true
	return f
}

// text is a string that check accepts.
func text(name string, p *string, check func(string) error) field {
	return field{
		name: name,
		set:  func(value any) error { return set(p, value, check) },
		get:  func() string { return quote(*p) },
		zero: func() bool { return *p == "" },
	}
}

// integer is a number from low to high.
func integer(name string, p *int64, low, high int64) field {
	return field{
		name: name,
		set: func(value any) error {
			return set(p, value, func(n int64) error {
				if n < low || n > high {
					return fmt.Errorf("is %d, expected %d to %d", n, low, high)
				}
				return nil
			})
		},
		get:  func() string { return strconv.FormatInt(*p, 10) },
		zero: func() bool { return *p == 0 },
	}
}

// boolean is true or false.
func boolean(name string, p *bool) field {
	return field{
		name: name,
		set:  func(value any) error { return set(p, value, func(bool) error { return nil }) },
		get:  func() string { return strconv.FormatBool(*p) },
		zero: func() bool { return !*p },
	}
}

// moment is a time in UTC.
func moment(name string, p *time.Time) field {
	return field{
		name: name,
		set: func(value any) error {
			return set(p, value, func(t time.Time) error {
				if t.Year() < 1970 || t.Year() > 9999 {
					return fmt.Errorf("is in the year %d, expected 1970 to 9999", t.Year())
				}
				return nil
			})
		},
		get:  func() string { return p.UTC().Format(time.RFC3339Nano) },
		zero: p.IsZero,
	}
}

// list is an array of distinct strings that check accepts. An empty one counts as absent.
func list(name string, p *[]string, check func(string) error) field {
	return field{
		name: name,
		set: func(value any) error {
			var items []string
			err := set(&items, value, func(items []string) error {
				for i, item := range items {
					if err := check(item); err != nil {
						return err
					}
					if slices.Contains(items[:i], item) {
						return fmt.Errorf("has %q twice", item)
					}
				}
				return nil
			})
			if len(items) > 0 {
				*p = items
			}
			return err
		},
		get: func() string {
			items := make([]string, len(*p))
			for i, item := range *p {
				items[i] = quote(item)
			}
			return "[" + strings.Join(items, ", ") + "]"
		},
		zero: func() bool { return len(*p) == 0 },
	}
}

// set keeps a value of type T that check accepts.
func set[T any](p *T, value any, check func(T) error) error {
	v, ok := value.(T)
	if !ok {
		return fmt.Errorf("is %s, expected %s", kindOf(value), kindOf(*p))
	}
	if err := check(v); err != nil {
		return err
	}
	*p = v
	return nil
}

func kindOf(value any) string {
	switch value.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case bool:
		return "a boolean"
	case time.Time:
		return "a time"
	}
	return "an array of strings"
}

// decoder fills the fields of a document.
type decoder struct {
	want  Type
	open  func(header string) (*table, error) // begins a table; "" is the document itself; nil: there is no such table
	lines map[string]int                      // of every table and key, by their names in errors
	keys  int                                 // read so far
}

// decode reads a document of a type. Errors: [SyntaxError], [TypeError], [UnsupportedError].
func decode(want Type, data []byte, open func(header string) (*table, error)) (*decoder, error) {
	if len(data) > MaxSize {
		return nil, &SyntaxError{Msg: fmt.Sprintf("document has %d bytes, expected at most %d", len(data), MaxSize)}
	}
	d := &decoder{want: want, open: open, lines: map[string]int{}}
	if err := plainText(data); err != nil {
		return nil, err
	}
	s := &scanner{text: string(data)}
	current, from, err := d.table("", 1)
	for err == nil {
		st, ok, scanErr := s.next()
		switch {
		case d.keys == 0 && st.key != "type":
			return nil, &TypeError{Got: typeOf(data), Want: want}
		case scanErr != nil:
			return nil, scanErr
		case !ok:
			return d, current.complete(d, from)
		case st.header == "":
			err = d.assign(current, st)
		default:
			if err = current.complete(d, from); err == nil {
				current, from, err = d.table(st.header, st.line)
			}
		}
	}
	return nil, err
}

// table begins a table.
func (d *decoder) table(header string, line int) (*table, int, error) {
	t, err := d.open(header)
	switch {
	case err != nil:
		return nil, line, &SyntaxError{Line: line, Msg: err.Error()}
	case t == nil:
		return nil, line, &SyntaxError{Line: line, Msg: fmt.Sprintf("unknown table %.60s", header)}
	case header == "":
		t.fields = append(d.head(), t.fields...)
	case d.lines[t.name] != 0:
		return nil, line, &SyntaxError{Line: line, Msg: fmt.Sprintf("table %s appears twice, first on line %d", header, d.lines[t.name])}
	}
	d.lines[t.name] = line
	return t, line, nil
}

// head lists the first keys of every document, in this order: a newer format may differ in all others.
func (d *decoder) head() []field {
	return []field{
		{name: "type", set: func(value any) error {
			if got, ok := value.(string); !ok || Type(got) != d.want {
				return &TypeError{Got: Type(got), Want: d.want}
			}
			return nil
		}},
		{name: "format", set: func(value any) error {
			if got, ok := value.(int64); ok && got != format {
				return &UnsupportedError{Format: got}
			}
			return set(new(int64), value, func(int64) error { return nil })
		}},
		{name: "requires", optional: true, set: func(value any) error {
			if got, ok := value.([]string); ok && len(got) > 0 { // no feature is known
				return &UnsupportedError{Features: got}
			}
			return set(new([]string), value, func([]string) error { return nil })
		}},
	}
}

// assign sets one key.
func (d *decoder) assign(t *table, st statement) error {
	name := st.key
	if t.name != "" {
		name = t.name + ": " + st.key
	}
	fail := func(format string, a ...any) error {
		return &SyntaxError{Line: st.line, Key: name, Msg: fmt.Sprintf(format, a...)}
	}
	place := slices.Index([]string{"type", "format", "requires"}, st.key)
	i := slices.IndexFunc(t.fields, func(f field) bool { return f.name == st.key })
	switch {
	case d.lines[name] != 0:
		return fail("appears twice, first on line %d", d.lines[name])
	case i < 0 && t.free == nil:
		return fail("unknown key")
	case t.name == "" && (place >= 0 && place != d.keys || d.keys == 1 && place != 1):
		return fail("is out of order; type, format and requires must come first")
	}
	d.keys++
	d.lines[name] = st.line
	var err error
	if t.free != nil {
		err = setFree(t.free, st)
	} else {
		err = t.fields[i].set(st.value)
	}
	if err == nil || isTyped(err) {
		return err
	}
	return fail("%v", err)
}

func isTyped(err error) bool {
	_, ofType := errors.AsType[*TypeError](err)
	_, unsupported := errors.AsType[*UnsupportedError](err)
	return ofType || unsupported
}

// setFree keeps a key of any name.
func setFree(free map[string]string, st statement) error {
	if len(free) == maxMeta {
		return fmt.Errorf("is one too many, expected at most %d keys", maxMeta)
	}
	if len(st.key) > maxName {
		return fmt.Errorf("key has %d bytes, expected at most %d", len(st.key), maxName)
	}
	var value string
	err := set(&value, st.value, func(s string) error { return printable(s, maxText) })
	free[st.key] = value
	return err
}

// complete refuses a table without one of its keys.
func (t *table) complete(d *decoder, line int) error {
	for _, f := range t.fields {
		name := f.name
		if t.name != "" {
			name = t.name + ": " + f.name
		}
		if !f.optional && d.lines[name] == 0 {
			return &SyntaxError{Line: line, Key: name, Msg: "is missing"}
		}
	}
	return nil
}

// locate gives an error of a check of the whole document the line of its key.
func (d *decoder) locate(err error) error {
	if e, ok := errors.AsType[*SyntaxError](err); ok {
		e.Line = d.lines[e.Key]
	}
	return err
}

// encoder writes a document.
type encoder struct{ bytes.Buffer }

// begin writes the head.
func (e *encoder) begin(t Type, fields []field) {
	fmt.Fprintf(e, "type = %s\nformat = %d\n", quote(string(t)), format)
	e.fields(fields)
}

// table writes a table.
func (e *encoder) table(header string, fields []field) {
	fmt.Fprintf(e, "\n%s\n", header)
	e.fields(fields)
}

func (e *encoder) fields(fields []field) {
	for _, f := range fields {
		if !f.optional || !f.zero() {
			fmt.Fprintf(e, "%s = %s\n", f.name, f.get())
		}
	}
}

// free writes keys of any name, sorted. A key that is not bare is quoted, and so refused by the reader.
func (e *encoder) free(header string, values map[string]string) {
	if len(values) == 0 {
		return
	}
	fmt.Fprintf(e, "\n%s\n", header)
	for _, key := range sortedKeys(values) {
		name := key
		if !isBare(key) {
			name = quote(key)
		}
		fmt.Fprintf(e, "%s = %s\n", name, quote(values[key]))
	}
}
