package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestStructure prints figures of each package's shape with -v, to be compared before and after a change. It fails only when it cannot
// measure. Test files are left out.
//
// A tie is an ordered pair of files of one package: the first uses an identifier that the second defines, methods and fields included.
// The files are put in an order, users first, by a greedy rule (see order); a tie climbs when it leads from a later file to an earlier
// one. Floors is the number of files on the longest chain of ties that do not climb.
func TestStructure(t *testing.T) {
	var imports, climbing, lines, files int
	t.Logf("%-32s %6s %6s %6s %9s %7s %7s", "package", "lines", "files", "ties", "per file", "climb", "floors")
	for _, p := range list(t, "updater/...") {
		s := measure(t, p)
		lines, files = lines+s.lines, files+len(p.GoFiles)
		t.Logf("%-32s %6d %6d %6d %9.1f %7d %7d", strings.TrimPrefix(p.ImportPath, "updater/"), s.lines, len(p.GoFiles), s.ties,
			float64(s.ties)/float64(max(1, len(p.GoFiles))), s.climb, s.floors)
		may, listed := allowed[p.ImportPath]
		for _, imp := range p.Imports {
			if listed && strings.HasPrefix(imp, "updater/") {
				imports++
				if !slices.Contains(may, imp) {
					climbing++
				}
			}
		}
	}
	t.Logf("%d lines in %d files; %d imports of packages in the table of arrows, %d not allowed", lines, files, imports, climbing)
	if files < 100 || imports < 20 {
		t.Errorf("%d files and %d imports were found", files, imports)
	}
}

type shape struct{ lines, ties, climb, floors int }

// measure reads the files of a package.
func measure(t *testing.T, p pkg) shape {
	t.Helper()
	var s shape
	fset, at := token.NewFileSet(), map[string]int{}
	var parsed []*ast.File
	for i, name := range p.GoFiles {
		source, err := os.ReadFile(filepath.Join(p.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		s.lines += bytes.Count(source, []byte("\n"))
		f, err := parser.ParseFile(fset, name, source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		at[name], parsed = i, append(parsed, f)
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: nothing{}, Error: func(error) {}} // names of other packages are unknown here, and an error
	self, _ := conf.Check(p.ImportPath, fset, parsed, info)
	uses := make([]map[int]bool, len(parsed))
	for i := range uses {
		uses[i] = map[int]bool{}
	}
	for id, object := range info.Uses {
		user, definer := at[fset.Position(id.Pos()).Filename], fset.Position(object.Pos()).Filename
		if of, ok := at[definer]; ok && object.Pkg() == self && of != user {
			uses[user][of] = true
		}
	}
	place, floor := order(uses), make([]int, len(uses))
	for _, i := range slices.Backward(place) { // the lowest first
		floor[i] = 1
		for of := range uses[i] {
			s.ties++
			if slices.Index(place, of) < slices.Index(place, i) {
				s.climb++
			} else {
				floor[i] = max(floor[i], floor[of]+1)
			}
		}
		s.floors = max(s.floors, floor[i])
	}
	return s
}

// nothing imports every package as an empty one.
type nothing struct{}

func (nothing) Import(name string) (*types.Package, error) {
	p := types.NewPackage(name, path.Base(name))
	p.MarkComplete()
	return p, nil
}

// order puts users before the files that they use, with few ties that climb: files that use no other remaining file go to the end, files that no
// other one uses go to the front, then the one whose uses exceed its users the most (Eades, Lin and Smyth, 1993).
func order(uses []map[int]bool) []int {
	left := map[int]bool{}
	for i := range uses {
		left[i] = true
	}
	var front, end []int
	for len(left) > 0 {
		best, score, atEnd := -1, 0, false
		for i := range uses {
			if !left[i] {
				continue
			}
			below, above := 0, 0
			for j := range left {
				if uses[i][j] {
					below++
				}
				if uses[j][i] {
					above++
				}
			}
			if below == 0 {
				best, atEnd = i, true
				break
			}
			if s := below - above; best < 0 || above == 0 || s > score {
				if best, score = i, s; above == 0 {
					break
				}
			}
		}
		if delete(left, best); atEnd {
			end = append(end, best)
		} else {
			front = append(front, best)
		}
	}
	slices.Reverse(end)
	return append(front, end...)
}
