package bridge

import (
	"bufio"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// redisProxy stands between a bridge and Redis. It understands enough of Redis's
// protocol to count commands and to lose the reply to a chosen one. It is safe
// for concurrent use.
type redisProxy struct {
	t  testing.TB
	ln *flakyListener

	mu     sync.Mutex
	target string
	counts map[string]int
	lose   loseReply

	dials atomic.Int64 // connections that were made or refused
	lost  atomic.Int64 // replies that were lost
	wg    sync.WaitGroup
}

// loseReply decides, with the command that a connection sent last and the
// beginning of what Redis answers, whether to cut the connection in place of
// handing the answer on.
type loseReply func(command []string, reply []byte) bool

// newRedisProxy starts a proxy to target that ends with t.
func newRedisProxy(t testing.TB, target string) *redisProxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &redisProxy{t: t, target: target, counts: map[string]int{}}
	p.ln = &flakyListener{Listener: ln, accepted: func() { p.dials.Add(1) }}
	p.wg.Go(p.serve)
	t.Cleanup(func() {
		p.ln.cut(true)
		p.ln.Close()
		p.wg.Wait()
	})
	return p
}

// url is what REDIS_URL must be to go through the proxy.
func (p *redisProxy) url() string { return "REDIS_URL=redis://" + p.ln.Addr().String() }

// refuse cuts all connections, and those made from now on, until accept.
func (p *redisProxy) refuse() { p.ln.cut(true) }

// accept ends what refuse began.
func (p *redisProxy) accept() { p.ln.cut(false) }

// switchTo cuts all connections; later ones go to another Redis.
func (p *redisProxy) switchTo(target string) {
	p.refuse()
	p.mu.Lock()
	p.target = target
	p.mu.Unlock()
	p.accept()
}

// loseReplies sets which replies are lost; nil loses none.
func (p *redisProxy) loseReplies(lose loseReply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose = lose
}

// loseOnce loses the first reply for which lose is true.
func (p *redisProxy) loseOnce(lose loseReply) {
	var done atomic.Bool
	p.loseReplies(func(command []string, reply []byte) bool {
		return lose(command, reply) && done.CompareAndSwap(false, true)
	})
}

// replyTo matches replies that hold a text to commands of a name with an argument
// that holds another.
func replyTo(name, argument, text string) loseReply {
	return func(command []string, reply []byte) bool {
		return strings.EqualFold(command[0], name) && strings.Contains(string(reply), text) &&
			slices.ContainsFunc(command, func(arg string) bool { return strings.Contains(arg, argument) })
	}
}

// commands returns how many commands passed, all together, and by name.
func (p *redisProxy) commands() (total int, byName map[string]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	byName = map[string]int{}
	for name, n := range p.counts {
		byName[name] = n
		total += n
	}
	return total, byName
}

func (p *redisProxy) serve() {
	for {
		client, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target := p.target
		p.mu.Unlock()
		server, err := net.Dial("tcp", target)
		if err != nil {
			client.Close()
			continue
		}
		link := &redisLink{proxy: p, client: client, server: server}
		p.wg.Go(link.forward)
		p.wg.Go(link.backward)
	}
}

// redisLink is one connection through the proxy.
type redisLink struct {
	proxy          *redisProxy
	client, server net.Conn

	mu   sync.Mutex
	last []string
}

func (l *redisLink) close() {
	l.client.Close()
	l.server.Close()
}

// forward hands commands on, one by one.
func (l *redisLink) forward() {
	defer l.close()
	in := bufio.NewReader(l.client)
	for {
		raw, command, err := readCommand(in)
		if err != nil {
			return
		}
		l.mu.Lock()
		l.last = command
		l.mu.Unlock()
		l.proxy.mu.Lock()
		l.proxy.counts[strings.ToUpper(command[0])]++
		l.proxy.mu.Unlock()
		if _, err := l.server.Write(raw); err != nil {
			return
		}
	}
}

// backward hands replies on, or loses them.
func (l *redisLink) backward() {
	defer l.close()
	buf := make([]byte, 64<<10)
	for {
		n, err := l.server.Read(buf)
		if err != nil {
			return
		}
		if l.loses(buf[:n]) {
			l.proxy.lost.Add(1)
			reset(l.client.(*listedConn).Conn)
			return
		}
		if _, err := l.client.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (l *redisLink) loses(reply []byte) bool {
	l.proxy.mu.Lock()
	lose := l.proxy.lose
	l.proxy.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	return lose != nil && len(l.last) > 0 && lose(l.last, reply)
}

// readCommand reads one command, an array of bulk strings, and returns it as it
// came and taken apart.
func readCommand(in *bufio.Reader) (raw []byte, command []string, err error) {
	n, raw, err := readLength(in, nil)
	if err != nil {
		return nil, nil, err
	}
	for range n {
		var size int
		if size, raw, err = readLength(in, raw); err != nil {
			return nil, nil, err
		}
		text := make([]byte, size+len("\r\n"))
		if _, err := io.ReadFull(in, text); err != nil {
			return nil, nil, err
		}
		raw = append(raw, text...)
		command = append(command, string(text[:size]))
	}
	if len(command) == 0 {
		return nil, nil, io.ErrUnexpectedEOF
	}
	return raw, command, nil
}

// readLength reads a line such as "*3" or "$5" and appends it to raw.
func readLength(in *bufio.Reader, raw []byte) (int, []byte, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return 0, nil, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(line[1:]))
	return n, append(raw, line...), err
}
