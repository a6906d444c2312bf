// Package browser drives a headless Chromium in tests: what a page may do, and what
// it looks like, only a real browser tells.
package browser

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"tebraproxy/pkg/peertest"
)

// startTimeout is for a cold start on a busy machine.
const startTimeout = 60 * time.Second

// Page is a tab of a browser that belongs to one test. It is for the test's own
// goroutine.
type Page struct {
	t   testing.TB
	ctx context.Context
}

// Open starts a browser with a profile of its own, which talks to nobody by
// itself, and ends it with the test. Without Chromium it skips the test.
func Open(t testing.TB) *Page {
	t.Helper()
	path := peertest.Program(t, "install Debian's chromium", "chromium", "chromium-browser", "google-chrome")
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.WSURLReadTimeout(startTimeout), chromedp.WindowSize(1280, 900),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("no-proxy-server", true),
	)
	allocator, free := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, end := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits for the process
		end()
		free()
	})
	p := &Page{t: t, ctx: ctx}
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return p
}

// Do runs actions that return nothing, for at most limit.
func (p *Page) Do(limit time.Duration, actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, limit)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// Go opens an address.
func (p *Page) Go(url string) {
	p.t.Helper()
	p.Do(startTimeout, chromedp.Navigate(url))
}

// Eval returns the value of an expression in the page, once it has one if it is a
// promise. A page that throws fails the test.
func Eval[T any](p *Page, limit time.Duration, expression string) T {
	p.t.Helper()
	value, err := Try[T](p, limit, expression)
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// Try is [Eval] for what may fail.
func Try[T any](p *Page, limit time.Duration, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(p.ctx, limit)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// Until waits until an expression in the page is true.
func (p *Page) Until(limit time.Duration, expression string) {
	p.t.Helper()
	peertest.Eventually(p.t, limit, fmt.Sprintf("the page to say %s", expression), func() bool {
		ok, err := Try[bool](p, limit, "Promise.resolve("+expression+").then(Boolean)")
		return err == nil && ok
	})
}

// Click presses the mouse on the element that a selector names, once that lies still
// and nothing covers it: what a click hits is decided by where it goes.
func (p *Page) Click(limit time.Duration, selector string) {
	p.t.Helper()
	p.Until(limit, fmt.Sprintf(`new Promise((tell) => {
		const box = () => {
			const e = document.querySelector(%q);
			e?.scrollIntoView({ block: 'nearest', behavior: 'instant' });
			const r = e?.getBoundingClientRect();
			return r && e.contains(document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2)) ? [r.x, r.y, r.width, r.height].join() : '';
		};
		const first = box();
		requestAnimationFrame(() => requestAnimationFrame(() => tell(first && box() === first)));
	})`, selector))
	p.Do(limit, chromedp.Click(selector))
}

// Screenshot returns what the page looks like, as PNG.
func (p *Page) Screenshot() []byte {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, startTimeout)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	return png
}

// Prefer makes the page believe that its user prefers a colour scheme: light or dark.
func (p *Page) Prefer(scheme string) {
	p.t.Helper()
	p.Do(startTimeout, chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
}
