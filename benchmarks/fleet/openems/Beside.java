package io.openems.edge.pvinverter.cluster; // the configuration of its test is visible only here

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import com.google.gson.Gson;

import io.openems.common.OpenemsConstants;
import io.openems.common.test.DummyConfigurationAdmin;
import io.openems.edge.common.test.AbstractComponentTest.TestCase;
import io.openems.edge.common.test.ComponentTest;
import io.openems.edge.common.test.DummyComponentManager;
import io.openems.edge.common.test.TestUtils;
import io.openems.edge.common.type.Phase.SingleOrAllPhase;
import io.openems.edge.ess.api.ManagedSymmetricEss;
import io.openems.edge.ess.core.power.EssPower;
import io.openems.edge.ess.core.power.EssPowerImpl;
import io.openems.edge.ess.power.api.Pwr;
import io.openems.edge.ess.power.api.Relationship;
import io.openems.edge.ess.power.api.SolverStrategy;
import io.openems.edge.ess.test.DummyManagedSymmetricEss;
import io.openems.edge.ess.test.DummyMetaEss;
import io.openems.edge.pvinverter.api.ManagedSymmetricPvInverter;
import io.openems.edge.pvinverter.test.DummyManagedSymmetricPvInverter;

/**
 * What OpenEMS' own classes give for the cases of beside.py: PvInverterClusterImpl and EssPowerImpl, as their test kit
 * runs them. Takes the cases as JSON. The last line that it prints is JSON: each rule's powers (W) of each case's members.
 */
class Beside {

    /** Cycles of OpenEMS before its powers are looked at: the older strategies learn who has given power before. */
    private static final int CYCLES = 10;

    /** W and %. Bounds have no sign: they are of the direction that is asked for. */
    record Case(int asked, int[] most, int[] least, int[] soc, int step) {
    }

    public static void main(String[] arguments) throws Exception {
        var gson = new Gson();
        var found = new LinkedHashMap<String, List<int[]>>();
        for (var asked : gson.fromJson(arguments[0], Case[].class)) {
            add(found, "PvInverterCluster", asked.asked() < 0 ? null : inverters(asked));
            for (var strategy : List.of(SolverStrategy.OPTIMIZE_BY_MOVING_TOWARDS_TARGET,
                    SolverStrategy.OPTIMIZE_BY_KEEPING_ALL_NEAR_EQUAL, SolverStrategy.BALANCE)) {
                add(found, strategy.name(), batteries(asked, strategy));
            }
        }
        System.out.println(gson.toJson(Map.of("version", OpenemsConstants.VERSION.toString(), "powers", found)));
    }

    private static void add(Map<String, List<int[]>> found, String rule, int[] powers) {
        found.computeIfAbsent(rule, key -> new ArrayList<>()).add(powers);
    }

    private static int[] inverters(Case asked) throws Exception {
        var members = new DummyManagedSymmetricPvInverter[asked.most().length];
        var manager = new DummyComponentManager();
        for (int n = 0; n < members.length; n++) {
            members[n] = new DummyManagedSymmetricPvInverter("pv" + n);
            TestUtils.withValue(members[n], ManagedSymmetricPvInverter.ChannelId.MAX_ACTIVE_POWER, asked.most()[n]);
            manager.addComponent(members[n]);
        }
        var ids = Arrays.stream(members).map(ManagedSymmetricPvInverter::id).toArray(String[]::new);
        var cluster = new PvInverterClusterImpl();
        new ComponentTest(cluster) //
                .addReference("componentManager", manager) //
                .activate(MyConfig.create().setId("pv").setPvInverterIds(ids).build())
                .next(new TestCase().onBeforeControllersCallbacks(() -> cluster.setActivePowerLimit(asked.asked())));
        return Arrays.stream(members) //
                .mapToInt(member -> member.getActivePowerLimitChannel().getNextValue().get()).toArray();
    }

    private static int[] batteries(Case asked, SolverStrategy strategy) throws Exception {
        var power = new EssPowerImpl();
        var given = new int[asked.most().length];
        var members = new DummyManagedSymmetricEss[given.length];
        for (int n = 0; n < given.length; n++) {
            final var at = n;
            members[n] = new DummyManagedSymmetricEss("ess" + n) //
                    .setPower(power).withPowerPrecision(Math.max(1, asked.step())) //
                    .withSoc(asked.soc()[n]).withMaxApparentPower(asked.most()[n]) //
                    .withAllowedChargePower(asked.asked() < 0 ? -asked.most()[n] : 0) //
                    .withAllowedDischargePower(asked.asked() < 0 ? 0 : asked.most()[n]) //
                    .withSymmetricApplyPowerCallback(applied -> given[at] = applied.activePower());
        }
        var cluster = new DummyMetaEss("ess", members).setPower(power);
        var configuration = new DummyConfigurationAdmin();
        configuration.getOrCreateEmptyConfiguration(EssPower.SINGLETON_SERVICE_PID);
        var test = new ComponentTest(power).addReference("cm", configuration).addReference("addEss", cluster);
        for (var member : members) {
            test.addReference("addEss", member);
        }
        test.activate(io.openems.edge.ess.core.power.MyConfig.create() //
                .setStrategy(strategy).setSymmetricMode(true).setDebugMode(false).setEnablePid(false).build());
        test.next(new TestCase().onBeforeWriteCallbacks(() -> {
            constrain(power, cluster, Relationship.EQUALS, asked.asked());
            for (int n = 0; n < given.length; n++) {
                if (asked.least()[n] > 0) {
                    constrain(power, members[n], Relationship.GREATER_OR_EQUALS, asked.least()[n]);
                }
            }
        }), CYCLES);
        return given;
    }

    private static void constrain(EssPowerImpl power, ManagedSymmetricEss ess,
            Relationship relationship, int value) throws Exception {
        power.addConstraint(
                power.createSimpleConstraint("", ess, SingleOrAllPhase.ALL, Pwr.ACTIVE, relationship, value));
    }
}
