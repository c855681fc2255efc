// Pull an image by @snyk/docker-registry-v2-client: HOST REPOSITORY TAG FOLDER.
const { writeFileSync } = require("fs");
const { join } = require("path");
const { getManifest, getLayer } = require("@snyk/docker-registry-v2-client");

async function pull(host, repository, tag, folder) {
  const options = { protocol: "http:" };
  const platform = { os: "linux", architecture: "amd64" };
  const manifest = await getManifest(host, repository, tag, undefined, undefined, options, platform);
  for (const blob of [manifest.config, ...manifest.layers]) {
    const data = await getLayer(host, repository, blob.digest, undefined, undefined, options);
    writeFileSync(join(folder, blob.digest.replace("sha256:", "")), data);
  }
}

pull(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
