module clan-discovery.test/envsubst

go 1.24

require github.com/a8m/envsubst v1.4.3
