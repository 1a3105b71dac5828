package web

import "time"

// Patience sets the time that a client has for 64 KiB of an upload.
func (s *Server) Patience(d time.Duration) { s.patience = d }

// Clock sets the clock of the limit of codes.
func (s *Server) Clock(now func() time.Time) { s.sessions.now = now }

// Code is the code of the page, and how it is shown.
func (o Options) Code() (code, shown string) { return o.code() }
