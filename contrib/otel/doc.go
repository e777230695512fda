// Package zotel is OpenTelemetry for zrdma: interceptors of package rpc that make
// spans and measure calls, and metrics of devices.
//
//	in, err := zotel.New(zotel.Config{})
//	srv, err := rpc.NewServer(rpc.ServerConfig{Interceptors: []rpc.ServerInterceptor{in.Server}})
//	cl, err := rpc.Dial(ctx, addr, rpc.Config{ClientInterceptors: []rpc.ClientInterceptor{in.Client}})
//	stop, err := in.ObserveDevice("mlx5_0", dev)
//
// A call of package rpc has no headers. With Config.Propagate on both sides the
// trace goes in front of the arguments, which takes 36 bytes of the message; else
// client and server have traces of their own.
//
// It is a module of its own, so that OpenTelemetry is no dependency of zrdma.
//
// # Ownership
//
// Interceptors take nothing: buffers and replies pass through. A device that is
// observed must not be closed before its stop was called.
//
// # Concurrency
//
// Every method may be called from any goroutine.
//
// # Blocking
//
// Nothing waits. ObserveDevice takes the locks of qp.Device.Stats when the reader
// of the meter provider collects.
//
// # Cleanup
//
// Call the functions that ObserveDevice returned. Providers are the caller's.
package zotel
