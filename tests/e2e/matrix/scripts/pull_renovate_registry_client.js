// Pull an image by @renovatebot/docker-registry-client: HOST REPOSITORY TAG FOLDER.
const { createWriteStream } = require("fs");
const { join } = require("path");
const { promisify } = require("util");
const { pipeline } = require("stream/promises");
const { createClientV2 } = require("@renovatebot/docker-registry-client");

async function pull(host, repository, tag, folder) {
  const client = createClientV2({
    name: `http://${host}/${repository}`,
    maxSchemaVersion: 2,
    acceptManifestLists: true,
  });
  const manifest = promisify(client.getManifest.bind(client));
  const list = await manifest({ ref: tag });
  const amd64 = list.manifests.find((each) => each.platform.architecture === "amd64");
  const image = await manifest({ ref: amd64.digest });
  const blob = promisify(client.createBlobReadStream.bind(client));
  for (const { digest } of [image.config, ...image.layers]) {
    await pipeline(await blob({ digest }), createWriteStream(join(folder, digest.replace("sha256:", ""))));
  }
  client.close();
}

pull(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
