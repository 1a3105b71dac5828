// Package security attacks the built program with hostile documents, images, servers and configurations. The numbers of its tests are those of
// docs/security.md. It has tests only.
package security
