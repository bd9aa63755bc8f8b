module clan-discovery.test/headscale

go 1.26.4

require github.com/juanfont/headscale v0.29.0
