package planted

import (
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var seam = regexp.MustCompile(`planted\.On\("([^"]+)"\)`)

// TestList_IsWhatIsPlanted compares the list with the seams in the source, so that no bug is listed that does not exist,
// and none exists that is not listed.
func TestList_IsWhatIsPlanted(t *testing.T) {
	seams := map[string]bool{}
	repository := os.DirFS("../..")
	err := fs.WalkDir(repository, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		b, err := fs.ReadFile(repository, name)
		for _, m := range seam.FindAllStringSubmatch(string(b), -1) {
			seams[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(slices.Sorted(maps.Keys(List[string](nil))), slices.Sorted(maps.Keys(seams))); d != "" {
		t.Errorf("listed (-) against planted (+):\n%s", d)
	}
}

func TestList_NothingIsPlantedHere(t *testing.T) {
	for name := range List([]string{"storm"}) {
		if guard, ok := strings.CutPrefix(name, "guard/"); On(name) || ok && OnGuard(guard) {
			t.Errorf("%s is planted in a build without the tag", name)
		}
	}
}
