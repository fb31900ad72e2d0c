import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// The api serves the interface below /interface and puts a nonce of each response
// where __CSP_NONCE__ stands (crates/trix-api/src/ui.rs).
export default defineConfig({
  base: "/interface/",
  html: { cspNonce: "__CSP_NONCE__" },
  plugins: [react()],
  build: {
    outDir: "dist",
    emptyOutDir: true,
    // The policy allows fonts and styles from files of the same origin only.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 1200,
  },
});
