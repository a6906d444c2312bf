// Package local runs the whole pipeline in one process (DESIGN section 11): the
// same bridge and the same functions as in production, and for what stands around
// them either a stand-in that needs nothing but Go, or the real part that an
// option names.
//
//	            stand-in                              option for the real part
//	Redis       miniredis                             Redis
//	Pub/Sub     package pump, which pushes            PubSubEmulator
//	PHP API     phptest                               PHPAPI
package local
