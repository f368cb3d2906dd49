package keystead_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"strings"
	"testing"

	"keystead"
)

func TestASecretThatIsLoggedDoesNotTellItsValue(t *testing.T) {
	_, acme := fresh(t, keystead.StoreOptions{})
	given := "correct horse"
	put(t, acme, "a", given)
	secret := must[*keystead.Secret](t)(acme.Get("a", keystead.Latest))
	type holder struct{ Held keystead.Secret }
	var texts []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, what := range []any{secret, *secret, holder{*secret}, &holder{*secret}, []*keystead.Secret{secret}, []keystead.Secret{*secret}} {
			texts = append(texts, fmt.Sprintf(verb, what))
		}
	}
	for _, what := range []any{secret, *secret, holder{*secret}} {
		texts = append(texts, string(must[[]byte](t)(json.Marshal(what))), string(must[[]byte](t)(xml.Marshal(what))))
	}
	numbers := strings.Trim(fmt.Sprint([]byte(given)), "[]")
	for _, text := range texts {
		for _, told := range []string{
			given, hex.EncodeToString([]byte(given)), base64.StdEncoding.EncodeToString([]byte(given)), numbers, strings.ReplaceAll(numbers, " ", ","), "0x63",
		} {
			if strings.Contains(strings.ToLower(text), strings.ToLower(told)) {
				t.Error(text)
			}
		}
	}
	equal(t, fmt.Sprint(secret), "keystead.Secret version 1, 13 bytes")
	equal(t, string(must[[]byte](t)(json.Marshal(secret))), `"keystead.Secret version 1, 13 bytes"`)
}
