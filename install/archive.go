package install

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"updater/device/config"
	"updater/release"
	"updater/source"
	"updater/update"
	"updater/verify"
)

// archive is a release that arrives as one tar stream, from a file or from standard input. It implements update.Stream.
type archive struct {
	*release.Archive
	from *Origins
	file *os.File // nil is standard input
	maps map[string][]byte
}

// openArchive fills in the document of a release in a tar stream, from which the job also gets its images.
func (r Request) openArchive(ctx context.Context, from *Origins, job *update.Job) (closeImage func() error, err error) {
	a := &archive{from: from, maps: map[string][]byte{}}
	closeImage = func() error { return nil }
	in := Interruptible(ctx, from.in.Stdin)
	if r.Image != "-" {
		if a.file, err = source.OpenFile(r.Image); err != nil {
			return nil, err
		}
		in, closeImage = a.file, a.file.Close
	}
	stream := bufio.NewReaderSize(in, 256<<10)
	if name, _ := stream.Peek(tarName); isBare(name) {
		if err = r.openBare(stream, a, job); err != nil {
			return nil, errors.Join(streamError(err), closeImage())
		}
		return closeImage, nil
	}
	if a.Archive, err = from.Trust.OpenArchive(stream); err != nil {
		if _, bad := errors.AsType[*release.ArchiveError](err); bad && a.file == nil {
			err = &config.RequestError{Err: err, Advice: "make the archive with updater release tar; a bare image from standard input needs --bmap"}
		}
		return nil, errors.Join(streamError(err), closeImage())
	}
	from.docs += int64(len(a.Document))
	job.Images, job.Document, job.Signature = a, a.Document, a.Signature
	return closeImage, nil
}

// streamError marks errors of the stream itself as errors of the source.
func streamError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &update.SourceError{Err: err}
	}
	return err
}

// Map implements update.Images.
func (a *archive) Map(_ context.Context, i release.Image) ([]byte, error) {
	data := a.Archive.Map(i)
	a.maps[i.Role] = data
	a.from.docs += int64(len(data))
	return data, nil
}

// Open implements update.Images. It reads the file once more.
func (a *archive) Open(_ context.Context, i release.Image) (update.ImageCloser, int64, error) {
	f, err := source.OpenFile(a.file.Name())
	if err != nil {
		return nil, 0, err
	}
	content, size, err := release.ArchiveMember(bufio.NewReaderSize(f, 256<<10), i.File)
	if err == nil {
		var img memberImage
		if img, size, err = a.image(content, i.File, size); err == nil {
			img.file = f
			return img, size, nil
		}
	}
	return nil, 0, errors.Join(streamError(err), f.Close())
}

// Next implements update.Stream.
func (a *archive) Next(ctx context.Context) (update.StreamImage, error) {
	file, size, content, err := a.Archive.Next()
	if err != nil {
		return update.StreamImage{}, streamError(err)
	}
	next := update.StreamImage{File: file}
	if next.Image, next.Size, err = a.image(content, file, size); err != nil {
		return next, err
	}
	if a.file != nil {
		next.Reopen = func(ctx context.Context) (update.ImageCloser, error) {
			img, _, err := a.Open(ctx, release.Image{File: file})
			return img, err
		}
	}
	return next, nil
}

// memberImage is an image in an archive.
type memberImage struct {
	*source.Image
	file *os.File // closed with it; nil in a stream
}

// Close implements update.ImageCloser.
func (m memberImage) Close() error {
	err := m.Image.Close()
	if m.file != nil {
		err = errors.Join(err, m.file.Close())
	}
	return err
}

// image opens a member of packed bytes as an image.
func (a *archive) image(content io.Reader, name string, packed int64) (memberImage, int64, error) {
	limits := a.from.limits()
	img, err := source.NewImage(content, name, limits)
	if err != nil {
		return memberImage{}, 0, &update.SourceError{Err: fmt.Errorf("image %s: %w", name, err)}
	}
	a.from.limitMemory(img.Codec(), limits)
	if img.Codec() != "raw" {
		packed = -1
	}
	return memberImage{Image: img}, packed, nil
}

// tarName is the length of the name at the beginning of a header (POSIX ustar).
const tarName = 100

// isBare reports whether the name of the first member is that of a block map or its signature.
func isBare(name []byte) bool {
	text, _, _ := strings.Cut(string(name), "\x00")
	return path.Ext(bareMap(text)) == ".bmap"
}

// bareMap is the name of the block map that a signature is for, or the name itself.
func bareMap(name string) string {
	return strings.TrimSuffix(strings.TrimSuffix(name, ".asc"), ".sig")
}

// openBare fills in the block map of one image in a tar stream: its signature, unless it is clearsigned, the map, and then the image.
func (r Request) openBare(stream io.Reader, a *archive, job *update.Job) (err error) {
	if job.Role, err = r.Config.Role(r.Role); err != nil {
		return err
	}
	members := release.NewMembers(stream)
	name, _, content, err := members.Next("block map")
	if err != nil {
		return err
	}
	if document := bareMap(name); document != name {
		if job.Signature, err = io.ReadAll(io.LimitReader(content, verify.MaxSignatureSize)); err != nil {
			return err
		}
		if err = a.from.Trust.CheckSignature(release.TypeMap, job.Signature); err != nil {
			return err
		}
		if name, _, content, err = members.Next(document); err == nil && name != document {
			err = &release.ArchiveError{Name: name, Msg: "expected " + document + " behind its signature"}
		}
		if err != nil {
			return err
		}
	}
	if job.Document, err = a.from.Trust.Read(content, release.TypeMap); err != nil {
		return err
	}
	a.from.docs += int64(len(job.Document))
	name, size, content, err := members.Next("image")
	if err != nil {
		return err
	}
	job.Image, job.ImageSize, err = a.image(content, name, size)
	return err
}
