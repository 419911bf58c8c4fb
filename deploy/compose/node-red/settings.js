// The credentials that `start` writes are in clear text, in a container's own memory; no telemetry, no look for updates.
module.exports = {
  uiPort: Number(process.env.PORT || 1880),
  flowFile: "flow.json",
  credentialSecret: false,
  telemetry: { enabled: false, updateNotification: false },
};
