package verify

// UnverifiedText returns the text of a clearsigned document without looking at its signature: for tools that show what
// a document says, never for acting on it.
func UnverifiedText(doc []byte) ([]byte, error) {
	c, err := parseClearsigned(doc)
	if err != nil {
		return nil, &SignatureError{Reason: "not a clearsigned document", Err: err}
	}
	return c.text, nil
}
