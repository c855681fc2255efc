// Pull an image by docker-registry-client, which asks for a single manifest: HOST REPOSITORY TAG FOLDER.
const { createWriteStream } = require("fs");
const { join } = require("path");
const { promisify } = require("util");
const { pipeline } = require("stream/promises");
const { createClientV2 } = require("docker-registry-client");

async function pull(host, repository, tag, folder) {
  const client = createClientV2({ name: `http://${host}/${repository}`, maxSchemaVersion: 2 });
  const image = await promisify(client.getManifest.bind(client))({ ref: tag });
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
