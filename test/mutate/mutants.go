package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mutant is one change of the source. All mutants of a package are compiled into one program; the environment selects the active one.
type mutant struct {
	pkg string
	id  int    // from 1, in its package
	key string // file, function, operator and text: it survives changes elsewhere in the file
}

// mutator rewrites a package. It only inserts text, so that mutants nest.
type mutator struct {
	pkg     string
	mutants []*mutant
	seen    map[string]int

	src   []byte
	base  token.Pos // of the file
	name  string    // of the file, in the module
	where string    // function
	ins   []insertion
}

type insertion struct {
	at   int
	tail bool // closes what an earlier one opened
	seq  int
	text string
}

// mutate returns the rewritten files of a package by their path, with the runtime that selects a mutant.
func (m *mutator) mutate(dir string, files []string) (map[string][]byte, error) {
	m.seen = map[string]int{}
	out := map[string][]byte{}
	for _, name := range files {
		path := filepath.Join(dir, name)
		src, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, src, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		m.src, m.base, m.name, m.ins = src, f.FileStart, m.pkg+"/"+name, nil
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				m.where = fn.Name.Name
				ast.Inspect(fn.Body, m.visit)
			}
		}
		out[path] = m.apply()
		out[filepath.Join(dir, "mutant_runtime.go")] = fmt.Appendf(nil, runtime, f.Name.Name)
	}
	return out, nil
}

// visit adds the mutants of one node. Outer nodes come before inner ones.
func (m *mutator) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GenDecl:
		return n.Tok != token.CONST
	case *ast.ArrayType:
		return false // its length is constant
	case *ast.BlockStmt:
		m.list(n.List)
	case *ast.CaseClause:
		m.list(n.Body)
	case *ast.CommClause:
		m.list(n.Body)
	case *ast.IfStmt:
		if isError(n.Cond) {
			m.wrap("ignore the error", n.Cond, "(", " && !mutant($N))")
		}
	case *ast.BinaryExpr:
		m.binary(n)
	case *ast.ReturnStmt:
		if i := len(n.Results) - 1; i >= 0 && isIdent(n.Results[i], "err") {
			m.wrap("return no error", n, "if mutant($N) { "+m.text(n.Pos(), n.Results[i].Pos())+"nil }; ", "")
		}
	}
	return true
}

// binary mutates conditions and their boundaries.
func (m *mutator) binary(n *ast.BinaryExpr) {
	other, found := map[token.Token]string{
		token.LSS: "<=", token.LEQ: "<", token.GTR: ">=", token.GEQ: ">", token.LAND: "||", token.LOR: "&&",
	}[n.Op]
	if found {
		x, y := m.text(n.X.Pos(), n.X.End()), m.text(n.Y.Pos(), n.Y.End())
		if n.Op == token.LAND || n.Op == token.LOR { // the operands may be of a lower precedence then
			x, y = "("+x+")", "("+y+")"
		}
		m.wrap(n.Op.String()+" is "+other, n, "(mutant($N) && ("+x+" "+other+" "+y+") || !mutant($N) && (", "))")
	}
	if n.Op == token.EQL || n.Op == token.NEQ || found && n.Op != token.LAND && n.Op != token.LOR {
		m.wrap("negate", n, "((", ") != mutant($N))")
	}
}

// list mutates a list of statements: each of them is dropped, and swapped with the next.
func (m *mutator) list(list []ast.Stmt) {
	for i, s := range list {
		if droppable(s) {
			m.wrap("drop", s, "if !mutant($N) { ", " }")
		}
		if i+1 < len(list) && movable(s) && movable(list[i+1]) {
			next := list[i+1]
			id := m.add("swap with the next", s)
			m.insert(s.Pos(), fmt.Sprintf("if mutant(%d) { %s }; ", id, m.text(next.Pos(), next.End())), false)
			m.insert(next.Pos(), fmt.Sprintf("if !mutant(%d) { ", id), false)
			m.insert(next.End(), " }", true)
		}
	}
}

// droppable reports whether the code compiles without a statement of any kind.
func droppable(s ast.Stmt) bool {
	switch s := s.(type) {
	case *ast.ExprStmt:
		call, ok := s.X.(*ast.CallExpr)
		return ok && !isIdent(call.Fun, "panic")
	case *ast.AssignStmt:
		return s.Tok != token.DEFINE
	case *ast.IncDecStmt, *ast.DeferStmt, *ast.GoStmt, *ast.SendStmt:
		return true
	}
	return false
}

// movable reports whether a statement is a step whose position may matter: one that can fail, or a call for its effect. Steps that fill a
// buffer commute.
func movable(s ast.Stmt) bool {
	switch s := s.(type) {
	case *ast.IfStmt:
		return s.Else == nil && s.Init != nil
	case *ast.AssignStmt:
		return s.Tok != token.DEFINE && isIdent(s.Lhs[len(s.Lhs)-1], "err")
	case *ast.ExprStmt:
		call, ok := s.X.(*ast.CallExpr)
		if !ok || isIdent(call.Fun, "panic") || isIdent(call.Fun, "copy") || isIdent(call.Fun, "clear") || isIdent(call.Fun, "delete") {
			return false
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		return !strings.HasPrefix(method.Sel.Name, "PutUint")
	}
	return false
}

func isError(cond ast.Expr) bool {
	c, ok := cond.(*ast.BinaryExpr)
	return ok && c.Op == token.NEQ && isIdent(c.X, "err") && isIdent(c.Y, "nil")
}

func isIdent(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

func (m *mutator) text(from, to token.Pos) string { return string(m.src[from-m.base : to-m.base]) }

// add makes a mutant of a node.
func (m *mutator) add(operator string, n ast.Node) int {
	words := strings.Join(strings.Fields(m.text(n.Pos(), n.End())), " ")
	if len(words) > 90 {
		words = words[:87] + "..."
	}
	key := fmt.Sprintf("%s %s: %s: %s", m.name, m.where, operator, words)
	if m.seen[key]++; m.seen[key] > 1 {
		key += fmt.Sprintf(" #%d", m.seen[key])
	}
	m.mutants = append(m.mutants, &mutant{m.pkg, len(m.mutants) + 1, key})
	return len(m.mutants)
}

// wrap makes a mutant by text before and behind a node; $N is its number.
func (m *mutator) wrap(operator string, n ast.Node, before, behind string) {
	id := fmt.Sprint(m.add(operator, n))
	m.insert(n.Pos(), strings.ReplaceAll(before, "$N", id), false)
	m.insert(n.End(), strings.ReplaceAll(behind, "$N", id), true)
}

func (m *mutator) insert(at token.Pos, text string, tail bool) {
	m.ins = append(m.ins, insertion{int(at - m.base), tail, len(m.ins), text})
}

// apply inserts texts: at one place first the closing ones, the innermost first, then the opening ones, the outermost first.
func (m *mutator) apply() []byte {
	slices.SortFunc(m.ins, func(a, b insertion) int {
		switch {
		case a.at != b.at:
			return cmp.Compare(a.at, b.at)
		case a.tail != b.tail:
			if a.tail {
				return -1
			}
			return 1
		case a.tail:
			return cmp.Compare(b.seq, a.seq)
		}
		return cmp.Compare(a.seq, b.seq)
	})
	var out []byte
	at := 0
	for _, i := range m.ins {
		out = append(append(out, m.src[at:i.at]...), i.text...)
		at = i.at
	}
	return append(out, m.src[at:]...)
}

// runtime selects the mutant of the environment, and records the mutants that are reached.
const runtime = `package %s

import (
	mutantOS "os"
	mutantStrconv "strconv"
	mutantSync "sync"
)

var (
	mutantActive, _ = mutantStrconv.Atoi(mutantOS.Getenv("MUTANT"))
	mutantTrace, _  = mutantOS.OpenFile(mutantOS.Getenv("MUTANT_TRACE"), mutantOS.O_APPEND|mutantOS.O_WRONLY, 0)
	mutantReached   mutantSync.Map
)

func mutant(n int) bool {
	if mutantTrace != nil { // open from the beginning: a test may lower the limit of open files
		if _, old := mutantReached.LoadOrStore(n, true); !old {
			_, _ = mutantTrace.WriteString(mutantStrconv.Itoa(n) + "\n")
		}
	}
	return n == mutantActive
}
`
