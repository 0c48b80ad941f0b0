// The dashboard, drawn by Grafana's own libraries (@grafana/data, @grafana/ui): they read the field configuration,
// match the overrides, format the values and draw the panels. Grafana's server and its panels' frames are not in them.
//
// BOARD, set before this runs, has the `dashboard`, the `answers` of Prometheus by panel and query, and the times
// `from`, `to` and `step` in seconds. Once drawn() is true, complaints() tells what Grafana leaves out without a word.
import {
  EventBusSrv,
  FieldType,
  Registry,
  applyFieldOverrides,
  createTheme,
  dateTime,
  fieldColorModeRegistry,
  fieldReducers,
  getFieldDisplayName,
  getFieldDisplayValues,
  getValueFormats,
  identityOverrideProcessor,
  toDataFrame,
} from '@grafana/data';
import {
  BigValue,
  GlobalStyles,
  PanelChrome,
  PanelContextProvider,
  ThemeContext,
  TimeSeries,
  VizRepeater,
} from '@grafana/ui';
import { createRoot } from 'react-dom/client';

const { dashboard, answers, from, to, step } = window.BOARD;
const theme = createTheme({ colors: { mode: 'dark' } });
const CELL = 30, GAP = 8, COLUMNS = 24;

// Grafana has these for every panel, and `custom` ones for its time series: @grafana/schema, GraphFieldConfig.
const STANDARD = 'color decimals displayName filterable links mappings max min noValue thresholds unit'.split(' ');
const CUSTOM = (
  'axisBorderShow axisCenteredZero axisColorMode axisGridShow axisLabel axisPlacement axisSoftMax axisSoftMin ' +
  'axisWidth barAlignment barMaxWidth barWidthFactor drawStyle fillBelowTo fillColor fillOpacity gradientMode ' +
  'hideFrom insertNulls lineColor lineInterpolation lineStyle lineWidth pointColor pointSize pointSymbol ' +
  'scaleDistribution showPoints spanNulls stacking thresholdsStyle transform'
).split(' ');
const property = (path, isCustom) => ({
  id: isCustom ? `custom.${path}` : path,
  name: path,
  path,
  isCustom,
  process: identityOverrideProcessor,
  shouldApply: (field) => field.type !== FieldType.time,
});
const registry = new Registry(() => [
  ...STANDARD.map((path) => property(path, false)),
  ...CUSTOM.map((path) => property(path, true)),
]);
const panels = dashboard.panels.filter((panel) => panel.type !== 'row');
const UNITS = new Set(getValueFormats().flatMap((group) => group.submenu.map((unit) => unit.value)));

const found = [];
// Where a library throws while it draws, nothing is drawn.
let stumbled = false;
window.addEventListener('error', ({ message }) => {
  stumbled = true;
  found.push(message);
});

function examine(panel) {
  const complain = (what) => found.push(`${panel.title}: ${what}`);
  const { defaults, overrides } = panel.fieldConfig;
  const colour = ({ mode, fixedColor }) => {
    if (!fieldColorModeRegistry.getIfExists(mode)) complain(`no colour mode ${mode}`);
    if (fixedColor) named(fixedColor);
  };
  const named = (name) => {
    if (/^[a-z-]+$/.test(name) && theme.visualization.getColorByName(name) === name) complain(`no colour ${name}`);
  };
  const value = (id, given) => {
    if (!registry.getIfExists(id)) complain(`no property ${id}`);
    if (id === 'unit' && !UNITS.has(given)) complain(`no unit ${given}`);
    if (id === 'color') colour(given);
    if (id === 'thresholds') given.steps.forEach((each) => named(each.color));
  };
  const { custom = {}, ...standard } = defaults;
  Object.entries(standard).forEach(([id, given]) => value(id, given));
  Object.entries(custom).forEach(([id, given]) => value(`custom.${id}`, given));
  overrides.forEach(({ properties }) => properties.forEach(({ id, value: given }) => value(id, given)));
  const calcs = panel.options.reduceOptions?.calcs ?? panel.options.legend.calcs;
  calcs.filter((id) => !fieldReducers.getIfExists(id)).forEach((id) => complain(`no calculation ${id}`));
  // Thresholds that neither colour a value nor are drawn are seen by nobody.
  const drawn = defaults.color.mode === 'thresholds' || (custom.thresholdsStyle?.mode ?? 'off') !== 'off';
  if (defaults.thresholds.steps.length > 1 && !drawn) complain('its thresholds are not shown');
}

function legend(template, labels) {
  return template.replace(/{{\s*(\w+)\s*}}/g, (_, name) => labels[name] ?? '');
}

// What the Prometheus data source makes of an answer.
function frames(panel) {
  return panel.targets.flatMap((target) =>
    answers[panel.id][target.refId].map(({ metric, values, value }) => {
      const samples = values ?? [value];
      const { __name__, ...labels } = metric;
      return toDataFrame({
        refId: target.refId,
        fields: [
          { name: 'Time', type: FieldType.time, config: { interval: step * 1000 }, values: samples.map(([at]) => at * 1000) },
          {
            name: 'Value',
            type: FieldType.number,
            labels,
            config: { displayNameFromDS: legend(target.legendFormat, metric) },
            values: samples.map(([, text]) => Number(text)),
          },
        ],
      });
    })
  );
}

// The series with the configuration that is theirs.
function configured(panel) {
  const complain = (what) => found.push(`${panel.title}: ${what}`);
  const fieldConfig = structuredClone(panel.fieldConfig);
  // JSON has no -Infinity: Grafana writes null, and reads it so.
  fieldConfig.defaults.thresholds.steps.forEach((each) => (each.value ??= -Infinity));
  let data = [];
  try {
    data = applyFieldOverrides({
      data: frames(panel),
      fieldConfig,
      fieldConfigRegistry: registry,
      replaceVariables: (text) => text,
      theme,
      timeZone: 'utc',
    });
  } catch (error) {
    complain(error.message);
  }
  const names = data.map((frame) => getFieldDisplayName(frame.fields[1], frame, data));
  if (names.length === 0) complain('no data');
  names.filter((name, at) => names.indexOf(name) !== at).forEach((name) => complain(`two series are named ${name}`));
  return { data, fieldConfig };
}

function Stat({ panel, data, fieldConfig, width, height }) {
  const { reduceOptions, orientation, colorMode, graphMode, justifyMode, textMode } = panel.options;
  const values = getFieldDisplayValues({
    data, fieldConfig, reduceOptions, theme, replaceVariables: (text) => text, timeZone: 'utc',
  });
  return (
    <VizRepeater
      getValues={() => values}
      source={data}
      renderCounter={0}
      autoGrid
      {...{ width, height, orientation }}
      renderValue={({ value, width, height, count, orientation: parentOrientation }) => (
        <BigValue
          value={value.display}
          {...{ width, height, count, parentOrientation, theme, colorMode, graphMode, justifyMode, textMode }}
        />
      )}
    />
  );
}

function Series({ panel, data, width, height }) {
  const timeRange = { from: dateTime(from * 1000), to: dateTime(to * 1000) };
  return (
    <PanelContextProvider value={{ eventsScope: 'board', eventBus: new EventBusSrv() }}>
      <TimeSeries
        frames={data}
        timeRange={{ ...timeRange, raw: timeRange }}
        timeZone="utc"
        legend={panel.options.legend}
        {...{ width, height }}
      />
    </PanelContextProvider>
  );
}

const DRAWN = { stat: Stat, timeseries: Series };

function place({ x, y, w, h }, width) {
  const column = (width - GAP * (COLUMNS - 1)) / COLUMNS;
  return {
    position: 'absolute',
    left: x * (column + GAP),
    top: y * (CELL + GAP),
    width: w * column + (w - 1) * GAP,
    height: h * CELL + (h - 1) * GAP,
  };
}

function Board({ width, series }) {
  return dashboard.panels.map((panel) => {
    const at = place(panel.gridPos, width);
    const Drawn = DRAWN[panel.type];
    return (
      <div key={panel.id} style={at}>
        {Drawn ? (
          <PanelChrome title={panel.title} width={at.width} height={at.height}>
            {(width, height) =>
              series[panel.id].data.length ? <Drawn {...{ panel, width, height }} {...series[panel.id]} /> : 'No data'
            }
          </PanelChrome>
        ) : (
          <div style={{ font: `500 18px/${CELL}px sans-serif` }}>{panel.title}</div>
        )}
      </div>
    );
  });
}

// What the reader does not see without scrolling or a wider screen.
function hidden() {
  return [...document.querySelectorAll('section')].flatMap((section) => {
    const title = section.querySelector('h2');
    const cut = title.scrollWidth > title.clientWidth ? ['its title is cut'] : [];
    const { bottom, right } = section.getBoundingClientRect();
    const rows = [...section.querySelectorAll('tbody tr')].map((row) => row.getBoundingClientRect());
    if (rows.some((row) => row.bottom > bottom + 1 || row.right > right + 1)) cut.push('its legend is cut');
    return cut.map((what) => `${title.textContent}: ${what}`);
  });
}

// A time series has its canvas, as soon as it has data.
window.drawn = () => {
  const sections = [...document.querySelectorAll('section')];
  const done = ({ id, type }, section) =>
    type === 'stat' || section.querySelector('canvas') || series[id].data.length === 0;
  return stumbled || (sections.length === panels.length && panels.every((panel, at) => done(panel, sections[at])));
};
window.complaints = () => [...found, ...hidden()];

panels.forEach(examine);
const series = Object.fromEntries(panels.map((panel) => [panel.id, configured(panel)]));
const bottom = Math.max(...dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
document.body.style = `background: ${theme.colors.background.canvas}; color: ${theme.colors.text.primary}; margin: 0; font-family: sans-serif`;
const root = document.createElement('div');
root.style = `position: relative; margin: ${GAP}px; height: ${bottom * (CELL + GAP)}px`;
document.body.append(root);
createRoot(root).render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <Board width={root.clientWidth} series={series} />
  </ThemeContext.Provider>
);
