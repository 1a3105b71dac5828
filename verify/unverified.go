package verify

// UnverifiedText returns the text of a clearsigned document without checking its signature, for tools that display it. Never act
// on it.
func UnverifiedText(doc []byte) ([]byte, error) {
	c, err := parseClearsigned(doc)
	if err != nil {
		return nil, &SignatureError{Reason: "not a clearsigned document", Err: err}
	}
	return c.text, nil
}
