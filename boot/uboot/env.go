package uboot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
)

// maxEnv bounds an environment; U-Boot's are 8 to 128 KiB.
const maxEnv = 1 << 20

// env is the data of one copy: its variables in their order.
type env struct {
	vars []string // "name=value"
	flag byte     // of a redundant copy
}

// flagOffset is where the flag byte of a redundant copy is.
const flagOffset = 4

// headerSize is what precedes the data: the CRC, and a flag byte in a redundant copy (U-Boot, include/env_internal.h).
func headerSize(redundant bool) int {
	if redundant {
		return 5
	}
	return 4
}

// parse reads a copy: u32 CRC of the data to its very end, the flag, then name=value strings, each ended by
// a NUL, and one NUL more. What follows is padding of any content.
func parse(copyBytes []byte, redundant bool) (*env, error) {
	head := headerSize(redundant)
	if len(copyBytes) < head+2 || len(copyBytes) > maxEnv {
		return nil, fmt.Errorf("has %d bytes, expected %d to %d", len(copyBytes), head+2, maxEnv)
	}
	data := copyBytes[head:]
	if want, got := binary.LittleEndian.Uint32(copyBytes), crc32.ChecksumIEEE(data); want != got {
		return nil, fmt.Errorf("has a bad checksum: %08x, its data has %08x", want, got)
	}
	e := new(env)
	if redundant {
		e.flag = copyBytes[4]
	}
	for len(data) > 0 && data[0] != 0 {
		before, after, ok := bytes.Cut(data, []byte{0})
		if !ok {
			return nil, fmt.Errorf("ends inside a variable: %.40q", data)
		}
		v := string(before)
		if strings.Index(v, "=") < 1 {
			return nil, fmt.Errorf("has %.40q, expected name=value", v)
		}
		e.vars, data = append(e.vars, v), after
	}
	return e, nil
}

// encode gives a copy of size bytes; the padding is zero.
func (e *env) encode(size int64, redundant bool) ([]byte, error) {
	head := headerSize(redundant)
	out := make([]byte, head, size)
	for _, v := range e.vars {
		out = append(append(out, v...), 0)
	}
	out = append(out, 0)
	if int64(len(out)) > size {
		return nil, fmt.Errorf("%d bytes of variables do not fit an environment of %d", len(out)-head, size)
	}
	out = append(out, make([]byte, size-int64(len(out)))...)
	binary.LittleEndian.PutUint32(out, crc32.ChecksumIEEE(out[head:]))
	if redundant {
		out[4] = e.flag
	}
	return out, nil
}

func (e *env) get(name string) string {
	for _, v := range e.vars {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// set changes a variable where it stands, or adds it at the front, so that in a single copy the change lies
// in the first sector. Without a value there is no variable, as for U-Boot.
func (e *env) set(name, value string) {
	for i, v := range e.vars {
		if !strings.HasPrefix(v, name+"=") {
			continue
		}
		if value == "" {
			e.vars = append(e.vars[:i], e.vars[i+1:]...)
			return
		}
		e.vars[i] = name + "=" + value
		return
	}
	if value == "" {
		return
	}
	e.vars = append([]string{name + "=" + value}, e.vars...)
}

func (e *env) equal(o *env) bool { return strings.Join(e.vars, "\x00") == strings.Join(o.vars, "\x00") }

func (e *env) clone() *env { return &env{vars: append([]string(nil), e.vars...), flag: e.flag} }

// keepPadding copies the old padding behind the variables of a single copy, so that only sectors with
// variables change, and renews the checksum.
func keepPadding(data, old []byte, e *env) {
	used := headerSize(false) + 1
	for _, v := range e.vars {
		used += len(v) + 1
	}
	copy(data[used:], old[used:])
	binary.LittleEndian.PutUint32(data, crc32.ChecksumIEEE(data[headerSize(false):]))
}
