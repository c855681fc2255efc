// Program copy copies an image, with all its platforms and each byte as it is, by the library that Podman, Buildah,
// Skopeo and CRI-O pull with: their own modules need C libraries. Usage: copy SOURCE TARGET, as with skopeo copy.
package main

import (
	"context"
	"fmt"
	"os"

	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/transports/alltransports"
	"go.podman.io/image/v5/types"
)

func run(from, to string) error {
	source, err := alltransports.ParseImageName(from)
	if err != nil {
		return err
	}
	target, err := alltransports.ParseImageName(to)
	if err != nil {
		return err
	}
	anything := &signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}}
	policy, err := signature.NewPolicyContext(anything)
	if err != nil {
		return err
	}
	_, err = copy.Image(context.Background(), policy, target, source, &copy.Options{
		SourceCtx:          &types.SystemContext{DockerInsecureSkipTLSVerify: types.OptionalBoolTrue},
		ImageListSelection: copy.CopyAllImages,
		PreserveDigests:    true,
	})
	return err
}

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
