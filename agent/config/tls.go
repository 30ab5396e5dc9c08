package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// TLS says how to speak TLS with etcd. The zero value means the system's certificate authorities and no certificate of
// one's own.
type TLS struct {
	CAFile     string `yaml:"ca_file"`
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	ServerName string `yaml:"server_name"` // expected in the certificate instead of the endpoint's host
}

// ClientConfig reads the files and returns what a client needs. The certificate and its key are read again at every
// call, so that renewed files take effect with a reload.
func (t TLS) ClientConfig() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	var errs []error
	t.load(cfg, func(key string, err error) { errs = append(errs, fmt.Errorf("%s %w", key, err)) })
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return cfg, nil
}

// load fills cfg from the files and reports what is wrong with each, by the key that names the file.
func (t TLS) load(cfg *tls.Config, report func(key string, err error)) {
	if t.CAFile != "" {
		pem, _, err := readRegular(t.CAFile, maxSecretFile*16) // a bundle of the system's authorities is some 200 KiB
		pool := x509.NewCertPool()
		switch {
		case err != nil:
			report("ca_file", err)
		case !pool.AppendCertsFromPEM(pem):
			report("ca_file", errors.New("holds no certificate in PEM format"))
		default:
			cfg.RootCAs = pool
		}
	}
	if t.CertFile == "" || t.KeyFile == "" {
		return
	}
	cert, _, certErr := readRegular(t.CertFile, maxSecretFile)
	if certErr != nil {
		report("cert_file", certErr)
	}
	key, mode, keyErr := readRegular(t.KeyFile, maxSecretFile)
	if keyErr == nil {
		keyErr = private(mode)
	}
	if keyErr != nil {
		report("key_file", keyErr)
	}
	if certErr != nil || keyErr != nil {
		return
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		report("cert_file", fmt.Errorf("does not go with key_file: %w", err))
		return
	}
	cfg.Certificates = []tls.Certificate{pair}
}
