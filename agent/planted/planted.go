// Package planted is the seam through which the simulation breaks one rule of the product at a time, to prove that it
// would notice (test/sim -planted).
//
// It owns nothing but a name. It promises that a binary built without the tag "planted" contains no seam at all: On is
// then a constant false, and the compiler removes what stands behind it.
package planted
