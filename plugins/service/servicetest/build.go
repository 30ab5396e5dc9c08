package servicetest

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Build compiles the program in a folder below the calling test's source and returns its path. It is for programs that a
// manager runs in place of those of a machine that is not here.
func Build(t testing.TB, folder string) string {
	t.Helper()
	_, source, _, ok := runtime.Caller(1) // the test may run in any folder
	here := filepath.Dir(source)
	if _, err := os.Stat(here); !ok || err != nil {
		t.Skipf("the source of this test is not here: %v", err)
	}
	out := filepath.Join(t.TempDir(), filepath.Base(folder))
	got, err := service.Runner{}.Run(t.Context(), service.Command{
		Path: goTool(t), Args: []string{"build", "-o", out, "./" + folder}, Dir: here, Env: os.Environ(),
	})
	if err != nil || got.ExitCode != 0 {
		t.Fatalf("build %s: %v, exit code %d\n%s", folder, err, got.ExitCode, got.Stderr)
	}
	return out
}

// goTool finds the tool that runs this test.
func goTool(t testing.TB) string {
	t.Helper()
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if path := filepath.Join(dir, "go"); filepath.IsAbs(path) {
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				return path
			}
		}
	}
	t.Skip("no go tool in PATH")
	return ""
}
