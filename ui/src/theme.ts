import {
  Button,
  type CSSVariablesResolver,
  createTheme,
  Drawer,
  type MantineColorsTuple,
  Modal,
  NumberInput,
  PasswordInput,
  Select,
  Table,
  Tabs,
  Textarea,
  TextInput,
  Tooltip,
} from "@mantine/core";

const brand: MantineColorsTuple = [
  "#eaf3fd",
  "#d3e4f8",
  "#a5c8f1",
  "#74aaea",
  "#4c90e4",
  "#3380e1",
  "#2373d9",
  "#1a63bf",
  "#1258ab",
  "#004b96",
];

// As the tone "bad" of app.css; white text on it is readable in both schemes.
const red: MantineColorsTuple = [
  "#fdecec",
  "#fbd5d6",
  "#f3a5a8",
  "#ec7b80",
  "#e3555b",
  "#d8414a",
  "#c92f38",
  "#bd2730",
  "#a51f26",
  "#8a171d",
];

const dark: MantineColorsTuple = [
  "#d5d9df",
  "#b3bac4",
  "#98a1ad",
  "#6f7985",
  "#49525d",
  "#353d47",
  "#2a3139",
  "#1d2228",
  "#161a1f",
  "#101317",
];

export const theme = createTheme({
  primaryColor: "brand",
  primaryShade: { light: 7, dark: 6 },
  colors: { brand, dark, red },
  fontFamily:
    'Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif',
  fontFamilyMonospace:
    'ui-monospace, "SF Mono", "JetBrains Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
  fontSizes: { xs: "11.5px", sm: "13px", md: "13.5px", lg: "15.5px", xl: "19px" },
  lineHeights: { xs: "1.4", sm: "1.45", md: "1.5", lg: "1.5", xl: "1.35" },
  defaultRadius: "sm",
  cursorType: "pointer",
  components: {
    Button: Button.extend({ defaultProps: { size: "xs" } }),
    TextInput: TextInput.extend({ defaultProps: { size: "xs" } }),
    PasswordInput: PasswordInput.extend({ defaultProps: { size: "xs" } }),
    NumberInput: NumberInput.extend({ defaultProps: { size: "xs" } }),
    Textarea: Textarea.extend({ defaultProps: { size: "xs" } }),
    Select: Select.extend({ defaultProps: { size: "xs", allowDeselect: false } }),
    Tabs: Tabs.extend({ defaultProps: { keepMounted: false } }),
    Table: Table.extend({ defaultProps: { verticalSpacing: 6, horizontalSpacing: 10 } }),
    Tooltip: Tooltip.extend({
      defaultProps: { openDelay: 250, withArrow: true, multiline: true, maw: 360, fz: "xs" },
    }),
    Modal: Modal.extend({
      defaultProps: {
        centered: true,
        overlayProps: { backgroundOpacity: 0.4 },
        closeButtonProps: { "aria-label": "Close" },
      },
    }),
    Drawer: Drawer.extend({
      defaultProps: {
        overlayProps: { backgroundOpacity: 0.3 },
        closeButtonProps: { "aria-label": "Close" },
      },
    }),
  },
});

export const variables: CSSVariablesResolver = () => ({
  variables: {},
  light: {
    "--mantine-color-body": "#f5f6f8",
    "--mantine-color-text": "#1b2027",
    "--mantine-color-dimmed": "#5c6773",
  },
  dark: {
    "--mantine-color-body": "#14181c",
    "--mantine-color-text": "#d9dde3",
    "--mantine-color-dimmed": "#97a1ad",
  },
});
