package apns

import (
	"encoding/asn1"
	"math"
)

const (
	// maxIterations is how many rounds a .p12 file may ask for in all to turn its password into keys. Programs ask for 2,000,
	// careful people for a million; who asks for more wants to keep a processor busy, and nothing could stop it.
	maxIterations = 2_000_000
	// maxDepth is how deep a count can lie in a file that is read; it lies at 17.
	maxDepth = 32
)

// iterations adds up the rounds that a .p12 file asks for, as far as it says so without being opened. A count is the
// integer that follows a salt, in each of the forms there are. The sum stops at math.MaxInt.
func iterations(der []byte, depth int) int {
	sum, salted := 0, false
	for depth < maxDepth && len(der) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			return sum // not DER: the contents of something else, or a file that will not be read either
		}
		der = rest
		if salted && v.Class == asn1.ClassUniversal && v.Tag == asn1.TagInteger {
			sum = add(sum, count(v.FullBytes))
		}
		// The class does not matter to who reads it.
		if salted = v.Tag == asn1.TagOctetString; salted || v.IsCompound {
			sum = add(sum, iterations(v.Bytes, depth+1))
		}
	}
	return sum
}

// count reads one count; what is no machine number will not be counted to either.
func count(der []byte) int {
	var n int
	if _, err := asn1.Unmarshal(der, &n); err != nil {
		return 0
	}
	return max(n, 0)
}

func add(a, b int) int {
	if a > math.MaxInt-b {
		return math.MaxInt
	}
	return a + b
}
