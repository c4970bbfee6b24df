package failpoint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// asksNothing lists what the packages unix, syscall and os have besides system calls, each with the reason why it
// needs no point. What is not listed here is taken for a system call.
var asksNothing = map[string]string{
	"unix.UnixRights":                "encodes a message",
	"unix.CmsgSpace":                 "computes a size",
	"unix.ParseSocketControlMessage": "decodes a message",
	"unix.ParseUnixRights":           "decodes a message",
	"unix.SignalName":                "looks into a table",
	"unix.WaitStatus":                "is a type",
	"unix.NsecToTimespec":            "computes",
	"process.Release":                "closes a descriptor; that cannot fail",
	"os.NewFile":                     "wraps a descriptor; the kernel is not asked",
	"os.Getpid":                      "cannot fail",
	"os.Getpagesize":                 "was told to the process when it started",
	"os.Environ":                     "is a copy that Go made at its start",
}

// methods that ask the kernel, of types that the packages use: os.Process and exec.Cmd.
var methods = regexp.MustCompile(`^(process|cmd)\.(Start|Wait|Kill|Signal|Release|Run|Output|CombinedOutput)$`)

var systemCall = regexp.MustCompile(`^(unix|syscall|os)\.[A-Z]`)

// site is a function that makes system calls or passes points.
type site struct {
	where         string
	calls, points []string
}

// sites reads all sources but tests, those of this package and those of other systems.
func sites(t *testing.T) []site {
	t.Helper()
	root := filepath.Join("..", "..")
	var found []site
	for _, dir := range []string{"shm", "pool", "engine", "capi", "internal"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			own := strings.Contains(path, "failpoint"+string(filepath.Separator))
			if err != nil || own || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			for _, declaration := range file.Decls {
				s := read(declaration)
				s.where, _ = filepath.Rel(root, files.Position(declaration.Pos()).String())
				if len(s.calls)+len(s.points) > 0 {
					found = append(found, s)
				}
			}
			return nil
		}))
	}
	return found
}

// read lists the system calls in a declaration and the points that it names.
func read(declaration ast.Decl) (s site) {
	ast.Inspect(declaration, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if name := nameOf(call.Fun); asksNothing[name] == "" && (methods.MatchString(name) || systemCall.MatchString(name)) {
				s.calls = append(s.calls, name)
			}
			if nameOf(call.Fun) == "failpoint.Fail" {
				s.points = append(s.points, "")
			}
		}
		if selected, ok := n.(*ast.SelectorExpr); ok {
			if name, found := strings.CutPrefix(nameOf(selected), "failpoint."); found && name != "Fail" && name != "Point" {
				s.points = append(s.points, name)
			}
		}
		return true
	})
	return s
}

// nameOf gives "package.Name" of a selector, else "".
func nameOf(e ast.Expr) string {
	if selected, ok := e.(*ast.SelectorExpr); ok {
		if base, ok := selected.X.(*ast.Ident); ok {
			return base.Name + "." + selected.Sel.Name
		}
	}
	return ""
}

// A function that asks the kernel asks once, and its point first (or, if the effect cannot be taken back, after).
func TestEverySystemCallHasAPoint(t *testing.T) {
	checked := 0
	for _, s := range sites(t) {
		if len(s.calls) == 0 {
			continue
		}
		checked++
		assert.Len(t, s.calls, 1, "%s makes several system calls; give each a function of its own, with its point", s.where)
		assert.Contains(t, s.points, "", "%s calls %v without a failpoint.Fail; see CONTRIBUTING.md", s.where, s.calls)
	}
	assert.Greater(t, checked, 20, "this test looks in the wrong place")
}

func TestEveryPointIsUsedOnceAndByThePackageThatItNames(t *testing.T) {
	used := map[string][]string{}
	for _, s := range sites(t) {
		for _, point := range s.points {
			if point != "" {
				used[point] = append(used[point], s.where)
			}
		}
	}
	declared := constants(t)
	require.Len(t, declared, int(count))
	for i, name := range declared {
		pkg, _, found := strings.Cut(Point(i).String(), ": ")
		require.True(t, found, "%s has no name of the form \"package: call\"", name)
		assert.True(t, strings.HasPrefix(strings.ToLower(name), pkg), "%s is called %q", name, Point(i))
		if assert.Len(t, used[name], 1, "%s is to have one place", name) {
			assert.True(t, strings.HasPrefix(used[name][0], pkg+"/"), "%s is in %s", name, used[name][0])
		}
	}
}

// constants lists the points in their order, from the source.
func constants(t *testing.T) (declared []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "points.go", nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	ast.Inspect(file, func(n ast.Node) bool {
		if group, ok := n.(*ast.GenDecl); ok && group.Tok == token.CONST {
			for _, spec := range group.Specs {
				if name := spec.(*ast.ValueSpec).Names[0].Name; name != "count" {
					declared = append(declared, name)
				}
			}
		}
		return true
	})
	return declared
}
