package console

import (
	"testing"

	"tebraproxy/pkg/peertest"
)

func TestMain(m *testing.M) { peertest.Main(m) }
