package doctor

import "testing"

func TestTheDoctorCanAskAboutEveryCommandOfTheDeployedACL(t *testing.T) {
	t.Parallel()
	names := needed("tebra")
	if len(names) < 20 {
		t.Fatalf("the ACL grants %v, want all that is needed", names)
	}
	for _, name := range names {
		if _, ok := examples[name]; !ok {
			t.Errorf("there is no example of %s to ask about", name)
		}
	}
}
