"""The commands that carry images to a mirror without a network: `have`, `export`, `import`, `bundle`."""
