package powercut

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"updater/bmap"
	"updater/verify"
)

// slotSize is small, so that many states are compared in full.
const slotSize = 64 << 10

// image is one signed image.
type image struct {
	name     string
	index    int64 // of rollback
	data     []byte
	doc, sig []byte
	sets     map[int]*set // as a release, by the number of roles
}

// stream is an image in memory.
type stream struct{ *bytes.Reader }

func (s stream) Skip(n int64) error {
	if n > int64(s.Len()) {
		return io.ErrUnexpectedEOF
	}
	_, err := s.Seek(n, io.SeekCurrent)
	return err
}

func (s stream) End() error {
	if s.Len() > 0 {
		return fmt.Errorf("%d bytes are left", s.Len())
	}
	return nil
}

func (s stream) Close() error { return nil }

// images are the signed images of all tests of a process, made once.
var images struct {
	sync.Once
	list   []*image
	policy verify.Policy
	cert   []byte // the trusted certificate, as a file
	signer *openpgp.Entity
	err    error
}

// pool returns images of different sizes, holes and ranges, and the trusted certificate.
func pool(t testing.TB) ([]*image, verify.Policy) {
	t.Helper()
	images.Do(func() { images.err = makeImages(t) })
	if images.err != nil {
		t.Fatal(images.err)
	}
	return images.list, images.policy
}

func makeImages(t testing.TB) error {
	entity, err := openpgp.NewEntity("release", "", "release@example.com", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "proof")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	keys := filepath.Join(dir, "release.asc")
	var cert bytes.Buffer
	w, err := armor.Encode(&cert, openpgp.PublicKeyType, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(entity.Serialize(w), w.Close(), os.WriteFile(keys, cert.Bytes(), 0o600)); err != nil {
		return err
	}
	ring, err := verify.LoadKeyring(keys)
	if err != nil {
		return err
	}
	images.cert, images.signer = cert.Bytes(), entity
	images.policy = verify.Policy{Keyring: ring, Time: time.Now()}
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 24 {
		img := &image{name: fmt.Sprintf("image %d", n)}
		// Some end inside a block, some inside a sector; a few have no hole.
		size := 40<<10 + rng.IntN(20<<10)
		if n%3 == 0 {
			size &^= 4095
		}
		img.data = make([]byte, size)
		for off := 0; off < size; off += 4096 {
			if n%4 == 0 || rng.IntN(3) > 0 || off == 0 {
				for i := off; i < min(off+4096, size); i++ {
					img.data[i] = byte(rng.UintN(255) + 1)
				}
			}
		}
		if n > 0 { // some blocks of the image before have moved
			old := images.list[n-1].data
			for k := 2; (k+4)*4096 <= min(len(old), size); k += 5 {
				if block := old[(k+3)*4096:][:4096]; img.data[k*4096] != 0 && block[0] != 0 {
					copy(img.data[k*4096:], block)
				}
			}
		}
		if img, err = signedImage(t, filepath.Join(dir, "image"), img.name, img.data, int64(4096<<rng.IntN(3))); err != nil {
			return err
		}
		images.list = append(images.list, img)
	}
	return nil
}

// signedImage makes the bmap of an image, whose file it leaves at path, and signs it.
func signedImage(t testing.TB, path, name string, data []byte, maxRange int64) (*image, error) {
	m, err := mapOf(t, path, data, maxRange)
	if err != nil {
		return nil, err
	}
	img := &image{name: name, data: data, doc: m.Encode()}
	if _, err := fmt.Sscanf(name, "image %d", &img.index); err != nil {
		return nil, err
	}
	img.index++ // 0 means none
	var sig bytes.Buffer
	if err := openpgp.DetachSign(&sig, []*openpgp.Entity{images.signer}, bytes.NewReader(img.doc), nil); err != nil {
		return nil, err
	}
	img.sig, img.sets = sig.Bytes(), map[int]*set{}
	for roles := 2; roles <= len(roleNames); roles++ {
		if img.sets[roles], err = img.release(t, path+".part", roles); err != nil {
			return nil, err
		}
	}
	return img, nil
}

func mapOf(t testing.TB, path string, data []byte, maxRange int64) (*bmap.Map, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(int64(len(data))); err != nil {
		return nil, err
	}
	for off := 0; off < len(data); off += 4096 {
		if p := data[off:min(off+4096, len(data))]; p[0] != 0 {
			if _, err := f.WriteAt(p, int64(off)); err != nil {
				return nil, err
			}
		}
	}
	return bmap.Create(t.Context(), f, bmap.CreateOptions{MaxRange: maxRange})
}
