package source

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
)

// A SchemeError reports an address of a scheme that cannot be fetched, such as ssh or ftp.
type SchemeError struct{ Scheme string }

func (e *SchemeError) Error() string {
	const expected = `expected a path, file:, http: or https:, or "-" with another program writing to standard input`
	return fmt.Sprintf("%s: addresses are not supported, %s", e.Scheme, expected)
}

// schemes are refused even without // after the colon; a file with such a name is written ./ssh:x.
var schemes = []string{
	"ssh", "scp", "sftp", "ftp", "ftps", "tftp", "rsync", "nfs", "smb", "cifs", "s3", "gs", "oci", "docker", "data", "mtp", "http", "https",
}

// ParseURL distinguishes addresses from paths: ok reports whether name begins with http:// or https://, in which case err reports
// an invalid address. Other schemes are a [SchemeError]; file: is a path, see [ReadFile].
func ParseURL(name string) (u *url.URL, ok bool, err error) {
	scheme, rest, isURL := cutScheme(name)
	switch {
	case !isURL || scheme == "file":
		return nil, false, nil
	case scheme != "http" && scheme != "https":
		return nil, false, &SchemeError{Scheme: scheme}
	}
	u, err = url.Parse(name)
	if err != nil {
		err = errors.New("it cannot be parsed") // its parts may be secrets: a slash in a password makes it a port
	}
	if err == nil && (u.Host == "" || u.Hostname() == "" || !strings.HasPrefix(rest, "//")) {
		err = errors.New("no host")
	}
	if err != nil {
		return nil, true, fmt.Errorf("invalid address, expected one such as https://updates.example.com/image.img.zst: %w", err)
	}
	u.Fragment, u.RawFragment = "", ""
	return u, true, nil
}

// cutScheme splits a scheme off a name (RFC 3986, section 3.1).
func cutScheme(name string) (scheme, rest string, ok bool) {
	scheme, rest, found := strings.Cut(name, ":")
	scheme = strings.ToLower(scheme)
	const letters = "abcdefghijklmnopqrstuvwxyz"
	if !found || scheme == "" || strings.Trim(scheme[:1], letters) != "" || strings.Trim(scheme, letters+"0123456789+-.") != "" {
		return "", name, false
	}
	if strings.HasPrefix(rest, "//") || scheme == "file" && strings.HasPrefix(rest, "/") {
		return scheme, rest, true
	}
	if slices.Contains(schemes, scheme) {
		return scheme, rest, true
	}
	return "", name, false
}

// localPath returns the path of a file: address (RFC 8089), and other names unchanged.
func localPath(name string) (string, error) {
	scheme, rest, ok := cutScheme(name)
	if !ok {
		return name, nil
	}
	if scheme != "file" {
		return "", &SchemeError{Scheme: scheme}
	}
	if after, hasHost := strings.CutPrefix(rest, "//"); hasHost {
		host, _, _ := strings.Cut(after, "/")
		if host != "" && !strings.EqualFold(host, "localhost") {
			return "", fmt.Errorf("file: address with the host %q, expected file:///PATH", host)
		}
		rest = after[len(host):]
	}
	p, err := url.PathUnescape(rest)
	if err != nil || !strings.HasPrefix(p, "/") || strings.ContainsAny(rest, "?#") {
		return "", errors.New("invalid file: address, expected file:///PATH with special characters escaped")
	}
	return p, nil
}

// Redact returns the name of a source for messages, logs and records: an address loses its user information, the value of
// its query and its fragment, which may be secrets; other names are returned unchanged.
func Redact(name string) string {
	u, ok, err := ParseURL(name)
	switch {
	case err != nil:
		return "(an invalid address)"
	case !ok:
		return name
	}
	return redact(u)
}

func redact(u *url.URL) string {
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	text := shown.String()
	if u.RawQuery != "" {
		text += "?..."
	}
	return text
}

// splitPath splits the escaped path of an address before its last element.
func splitPath(u *url.URL) (dir, base string) { return path.Split(u.EscapedPath()) }

// withPath returns the address with another escaped path and the same query.
func withPath(u *url.URL, escaped string) (*url.URL, error) {
	beside := *u
	var err error
	beside.Path, err = url.PathUnescape(escaped)
	beside.RawPath = escaped
	return &beside, err
}
