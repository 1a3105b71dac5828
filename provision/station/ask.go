package station

import (
	"bufio"
	"context"
	"io"

	"updater/install"
)

// Asker returns a function that asks a person one question after the other. prompt shows it; an answer is a line, as a barcode scanner types it.
func Asker(from io.Reader, prompt func(question string)) func(ctx context.Context, question string) (string, error) {
	var in *bufio.Reader
	return func(ctx context.Context, question string) (string, error) {
		if in == nil {
			in = bufio.NewReader(io.LimitReader(install.Interruptible(ctx, from), 1<<20))
		}
		prompt(question)
		text, err := in.ReadString('\n')
		if err == io.EOF && text != "" {
			err = nil
		}
		return text, err
	}
}
